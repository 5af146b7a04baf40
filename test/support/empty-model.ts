import type { DefinitionsModel, Model, RetainedModel, StreamModel } from '../../src/api/gateway.ts'

const refuse = (): never => {
  throw new TypeError('not asked for here')
}

/** A gateway without queues, for tests of what else the API does. */
export const EMPTY_MODEL: Model = {
  exchanges: () => [],
  exchange: () => undefined,
  declareExchange: refuse,
  deleteExchange: refuse,
  bindings: () => [],
  bind: refuse,
  unbind: refuse,
  queues: () => [],
  sessionQueues: () => [],
  queue: () => undefined,
  declareQueue: refuse,
  deleteQueue: refuse,
  peek: refuse,
  purge: refuse,
  get: refuse,
  deadLetterQueues: () => [],
  replay: refuse,
}

/** The same of streams. */
export const NO_STREAMS: StreamModel = {
  all: async () => [],
  stream: refuse,
  messages: refuse,
  replay: refuse,
  delete: refuse,
}

/** Of retained messages. */
export const NO_RETAINED: RetainedModel = {
  list: async () => [],
  clear: refuse,
}

/** And of definitions. */
export const NO_DEFINITIONS: DefinitionsModel = {
  export: refuse,
  import: refuse,
}

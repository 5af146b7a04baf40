import type {
  DefinitionsDocument,
  DefinitionsImported,
  Definitions as DefinitionsRequest,
  QueueStatus,
} from './api/contract.ts'
import type { DefinitionsModel } from './api/gateway.ts'
import {
  bindingText,
  type Declarations,
  type DefinitionRefusal,
  type Definitions,
  definitionsRefused,
} from './core/declarations.ts'
import { sortKeys } from './core/definition-record.ts'
import type { Streams } from './core/streams.ts'
import { bindingSpec, exchangeSpec, queueSpec, type RunningModel } from './gateway-model.ts'
import { DEFINITIONS_FORMAT } from './model/definitions-document.ts'
import { BrokerError } from './model/error.ts'
import { exchangeName, queueName } from './model/names.ts'

/** So many of what was created are named. */
const CREATED_TOLD = 100

/** What is declared on the running gateway as one document, and back. */
export class RunningDefinitions implements DefinitionsModel {
  readonly #declarations: Declarations
  readonly #streams: Streams
  readonly #model: RunningModel

  constructor({ declarations, streams }: { declarations: Declarations; streams: Streams }, model: RunningModel) {
    this.#declarations = declarations
    this.#streams = streams
    this.#model = model
  }

  export(): DefinitionsDocument {
    const exchanges: DefinitionsDocument['exchanges'] = []
    for (const { origin, ...exchange } of this.#model.exchanges()) {
      if (origin !== 'built-in') exchanges.push({ ...exchange, origin })
    }
    const streams = [...this.#streams.all()].map(({ name, retention, ack }) => ({
      name,
      retain: { age_ms: retention.ageMs, bytes: retention.bytes },
      ack,
      origin: this.#streams.originOf(name),
    }))
    return {
      format: DEFINITIONS_FORMAT,
      exchanges: inOrder(exchanges),
      queues: inOrder([...this.#model.queues()].map(queueEntry)),
      streams: inOrder(streams),
      bindings: inOrder([...this.#model.bindings()].map(sortArguments)),
    }
  }

  async import(request: DefinitionsRequest, options: { readonly isDryRun: boolean }): Promise<DefinitionsImported> {
    const definitions = readDefinitions(request)
    const missing = await this.#declarations.declareAll(definitions, options)
    const figures = (kind: keyof Definitions) => ({
      created: missing[kind].length,
      existing: definitions[kind].length - missing[kind].length,
      config: request[kind].length - definitions[kind].length,
    })
    const created = [
      ...missing.exchanges.map(({ spec }) => `exchange ${spec.name}`),
      ...missing.queues.map(({ name }) => `queue ${name}`),
      ...missing.streams.map(({ name }) => `stream ${name}`),
      ...missing.bindings.map(({ spec }) => bindingText(spec)),
    ]
    return {
      dry_run: options.isDryRun,
      exchanges: figures('exchanges'),
      queues: figures('queues'),
      streams: figures('streams'),
      bindings: figures('bindings'),
      created: created.slice(0, CREATED_TOLD),
    }
  }
}

/** What is not left to the configuration, in the words of the core. @throws BrokerError DEFINITIONS_REFUSED with each that has no meaning */
function readDefinitions({ exchanges, queues, streams, bindings }: DefinitionsRequest): Definitions {
  const refusals: DefinitionRefusal[] = []
  const read = <T>(item: string, spec: () => T): T[] => {
    try {
      return [spec()]
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      refusals.push({ item, error })
      return []
    }
  }
  const definitions: Definitions = {
    exchanges: exchanges
      .filter(isDeclared)
      .flatMap(({ name, origin, ...attributes }) =>
        read(`exchange ${name}`, () => ({ spec: exchangeSpec(exchangeName(name), attributes), origin })),
      ),
    queues: queues
      .filter(isDeclared)
      .flatMap(({ name, origin, ...attributes }) =>
        read(`queue ${name}`, () => queueSpec(queueName(name), origin, attributes)),
      ),
    streams: streams.filter(isDeclared).flatMap(({ name, origin, retain, ack = 'fsync' }) =>
      read(`stream ${name}`, () => ({
        name: queueName(name),
        origin,
        retention: { ageMs: retain.age_ms, bytes: retain.bytes },
        ack,
      })),
    ),
    bindings: bindings.filter(isDeclared).flatMap(({ origin, ...attributes }) => {
      const { source, destination_type, destination } = attributes
      return read(`binding from ${source} to ${destination_type} ${destination}`, () => ({
        spec: bindingSpec(attributes),
        origin,
      }))
    }),
  }
  if (refusals.length > 0) throw definitionsRefused(refusals)
  return definitions
}

function isDeclared<T extends { readonly origin: string }>(
  entry: T,
): entry is Exclude<T, { readonly origin: 'config' }> {
  return entry.origin !== 'config'
}

/** As `PUT queues/NAME` takes it. */
function queueEntry({ name, durable, limits, policy, dead_letter, origin }: QueueStatus) {
  return { name, durable, limits, ...policy, dead_letter, origin }
}

function sortArguments<T extends { readonly arguments: Readonly<Record<string, unknown>> | null }>(binding: T): T {
  if (binding.arguments === null) return binding
  return { ...binding, arguments: sortKeys(binding.arguments) }
}

/** By name, or what else comes first in them: the same entries are in the same order wherever and whenever they were declared. */
function inOrder<T extends object>(entries: readonly T[]): T[] {
  return entries
    .map(entry => ({ entry, text: JSON.stringify(entry) }))
    .sort((a, b) => (a.text < b.text ? -1 : 1))
    .map(({ entry }) => entry)
}

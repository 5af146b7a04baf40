import { BrokerError } from '../model/error.ts'

/**
 * Version of the records of queues, streams, exchanges and bindings in state/. It is raised when an earlier version of Sluice would misread a record: then
 * that version refuses to start instead. A record without one is of the first.
 */
const DEFINITION_VERSION = 1

/** A definition as JSON with its version, keys in order: the same definition is the same bytes, wherever it came from. What is infinite is written as null. */
export function encodeDefinitionRecord(definition: object): Buffer {
  const inOrder = (_: string, value: unknown): unknown => (isPlainObject(value) ? sortKeys(value) : value)
  return Buffer.from(JSON.stringify({ version: DEFINITION_VERSION, ...definition }, inOrder))
}

export function sortKeys<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1))) as T
}

const isPlainObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What encodeDefinitionRecord was given, without what JSON has no words for. @throws BrokerError STORE_FORMAT_UNKNOWN if a later version wrote it. */
export function decodeDefinitionRecord<Kept extends object>(value: Buffer): Kept {
  const { version = DEFINITION_VERSION, ...kept } = JSON.parse(value.toString())
  if (version === DEFINITION_VERSION) return kept
  throw new BrokerError(
    'STORE_FORMAT_UNKNOWN',
    `The store has a definition of version ${version}, this version of Sluice reads version ${DEFINITION_VERSION}: run the version that wrote it, or choose another data_dir`,
    { facts: { version, definition: value.toString().slice(0, 200) } },
  )
}

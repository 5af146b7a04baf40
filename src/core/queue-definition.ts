import { PLAIN_POLICY, type QueuePolicy } from '../model/queue-policy.ts'
import { StatePrefix } from '../store/keys.ts'
import { decodeDefinitionRecord } from './definition-record.ts'
import type { MessageAddress } from './mover.ts'
import type { QueueLimits } from './queue.ts'

export type Origin = 'config' | 'api' | 'client'
export type Qos0Policy = 'buffer' | 'pass' | 'ignore'

/** A queue as it is declared. */
export interface QueueSpec {
  readonly name: string
  readonly origin: Origin
  readonly limits: QueueLimits
  readonly qos0: Qos0Policy
  /** What is not said is as in PLAIN_POLICY. */
  readonly policy?: Partial<QueuePolicy>
  /** Where its dead letters go; null: nowhere, they are dropped and counted. */
  readonly deadLetter?: MessageAddress | null
  /** false: its messages and its definition go with the process. */
  readonly isDurable?: boolean
}

/** A queue as it is kept. */
export interface QueueDefinition {
  readonly name: string
  readonly origin: Origin
  readonly limits: QueueLimits
  readonly qos0: Qos0Policy
  /** What differs from PLAIN_POLICY. */
  readonly policy: Partial<QueuePolicy>
  readonly deadLetter: MessageAddress | null
  /** Numbers in the store: of its lane of priority 0, and of those above. A queue that is not durable has none, and is not kept. */
  readonly number: number
  readonly lanes: readonly number[]
}

export const QUEUE_DEFINITIONS = Buffer.from([StatePrefix.definition, 'q'.charCodeAt(0)])

export function defineQueue(
  { name, origin, limits, qos0, policy = {}, deadLetter = null }: QueueSpec,
  numbers: readonly number[],
): QueueDefinition {
  const [number = 0, ...lanes] = numbers
  return { number, name, origin, limits, qos0, policy: differences(policy), deadLetter, lanes }
}

/** Every queue that is only known from its messages. */
export function foundQueue(name: string, numbers: readonly number[]): QueueDefinition {
  const most = Number.MAX_SAFE_INTEGER
  const limits: QueueLimits = { messages: most, bytes: most, ageMs: most, onFull: 'reject' }
  return defineQueue({ name, origin: 'config', limits, qos0: 'buffer' }, numbers)
}

export function resolvePolicy(policy: Partial<QueuePolicy>): QueuePolicy {
  return { ...PLAIN_POLICY, ...policy }
}

export function isSamePolicy(a: QueuePolicy, b: QueuePolicy): boolean {
  return JSON.stringify(differences(a)) === JSON.stringify(differences(b))
}

/** JSON has no infinite numbers, and no policy that differs from the plain one is infinite. */
function differences(policy: Partial<QueuePolicy>): Partial<QueuePolicy> {
  const given = resolvePolicy(policy)
  const differing = Object.entries(given).filter(
    ([key, value]) => JSON.stringify(value) !== JSON.stringify(PLAIN_POLICY[key as keyof QueuePolicy]),
  )
  return Object.fromEntries(differing)
}

/** @throws BrokerError STORE_FORMAT_UNKNOWN */
export function decodeDefinition(value: Buffer): QueueDefinition {
  const { limits, policy, deadLetter, lanes, ...definition } = decodeDefinitionRecord<Kept>(value)
  return {
    ...definition,
    limits: { ...limits, ageMs: limits.ageMs ?? Number.POSITIVE_INFINITY },
    policy: policy ?? {},
    deadLetter: deadLetter ?? null,
    lanes: lanes ?? [],
  }
}

/** Those of earlier versions have neither policy, dead-letter address nor lanes. */
type Kept = Omit<QueueDefinition, 'limits' | 'policy' | 'deadLetter' | 'lanes'> & {
  readonly limits: Omit<QueueLimits, 'ageMs'> & { readonly ageMs: number | null }
  readonly policy?: Partial<QueuePolicy>
  readonly deadLetter?: MessageAddress | null
  readonly lanes?: readonly number[]
}

export function definitionKey(queue: number): Buffer {
  return Buffer.concat([QUEUE_DEFINITIONS, numberBytes(queue)])
}

export function numberBytes(queue: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(queue)
  return bytes
}

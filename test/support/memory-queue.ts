import { MemoryBudget } from '../../src/core/memory.ts'
import { Queue, type QueueLimits } from '../../src/core/queue.ts'
import { recordAcceptedAt, recordPrefix } from '../../src/model/message.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../src/model/queue-policy.ts'
import { messageTo, WIDE_LIMITS } from './messages.ts'

/** A queue in memory, its budget, and a door into it. */
export interface MemoryQueue {
  readonly queue: Queue
  readonly memory: MemoryBudget
  /** Appends a message and pumps. It is accepted at its number (1, 2, …) on the clock that `time` shows. */
  readonly put: (payload: string, changes?: { priority?: number; expiryMs?: number }) => void
  /** What ages are reckoned by, milliseconds. */
  readonly time: { nowMs: number }
  /** The queue, while it holds messages that expire. */
  readonly expiring: ReadonlySet<Queue>
}

export function memoryQueue(limits: Partial<QueueLimits> = {}, policy: Partial<QueuePolicy> = {}): MemoryQueue {
  const memory = new MemoryBudget(64 * 1024 ** 2)
  const time = { nowMs: 0 }
  const expiring = new Set<Queue>()
  const queue = new Queue({
    name: 'q',
    limits: { ...WIDE_LIMITS, ...limits },
    qos0: 'buffer',
    policy: { ...PLAIN_POLICY, ...policy },
    memory,
    monotonicMs: () => performance.now(),
    ageMs: (bytes, at) => time.nowMs - recordAcceptedAt(bytes, at),
    expiring,
    durability: null,
    stored: null,
  })
  let seq = 0
  return {
    queue,
    memory,
    time,
    expiring,
    put: (payload, { priority = 0, expiryMs = 0 } = {}) => {
      const prefix = recordPrefix(messageTo('a/b', '', { priority }))
      const body = Buffer.from(payload)
      const acceptance = { seq: ++seq, boot: 1, acceptedAt: seq, clock: 2 } as const
      queue.take(prefix, acceptance, expiryMs, body, 0, body.length, 0, 0, 0, 0)
      queue.pump()
    },
  }
}

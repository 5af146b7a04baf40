import { setTimeout as delay } from 'node:timers/promises'

export interface Patience {
  /** How long to wait at most before the test fails. */
  readonly deadlineMs?: number
  /** Pause between two looks. */
  readonly intervalMs?: number
  /** What is waited for, in words, for the message of the failure. */
  readonly what?: string
}

/**
 * Waits until `condition` gives something truthy and returns that. A condition that throws counts as not yet; the last error
 * becomes the cause of the failure at the deadline. A block of `expect(…)` returns undefined, which here means not yet: use
 * `eventuallyPasses` for that.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { deadlineMs = 10_000, intervalMs = 10, what = 'the condition' }: Patience = {},
): Promise<Exclude<T, false | null | undefined | 0 | ''>> {
  const deadline = performance.now() + deadlineMs
  let cause: unknown
  for (;;) {
    try {
      const value = await condition()
      if (isTruthy(value)) return value
      cause = undefined
    } catch (error) {
      cause = error
    }
    if (performance.now() >= deadline) throw new Error(`${what} did not come true within ${deadlineMs} ms`, { cause })
    await delay(intervalMs)
  }
}

/** Waits until `assertion` no longer throws; at the deadline its last error is thrown as it is. */
export async function eventuallyPasses(
  assertion: () => void | Promise<void>,
  { deadlineMs = 10_000, intervalMs = 10 }: Omit<Patience, 'what'> = {},
): Promise<void> {
  const deadline = performance.now() + deadlineMs
  for (;;) {
    try {
      await assertion()
      return
    } catch (error) {
      if (performance.now() >= deadline) throw error
    }
    await delay(intervalMs)
  }
}

function isTruthy<T>(value: T): value is Exclude<T, false | null | undefined | 0 | ''> {
  return Boolean(value)
}

/** Time, injected everywhere so that tests can turn it. Timers and ages use the monotonic side only (design.md section 5). */
export interface Clock {
  /** Milliseconds that never jump; the zero point is the start of the process. */
  monotonicMs(): number
  /** Milliseconds since 1970 as the machine believes them now; may jump either way. */
  wallMs(): number
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
}

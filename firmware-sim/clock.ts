/**
 * Time in the simulated world: `speed` virtual milliseconds pass per real one. It drives what happens in the world (sampling,
 * weather), not the protocol: the broker at the other end lives in real time, so keep-alive, acknowledgement and reconnect
 * times are real.
 */
export class Clock {
  readonly speed: number
  readonly #epochMs: number
  readonly #startedAt = performance.now()

  /** `epochMs`: what a device's own clock (Unix time) shows at virtual time 0. */
  constructor({ speed, epochMs }: { speed: number; epochMs: number }) {
    if (!(speed > 0)) throw new TypeError(`speed must be greater than 0, not ${speed}`)
    this.speed = speed
    this.#epochMs = epochMs
  }

  /** Virtual milliseconds since the start. */
  now(): number {
    return (performance.now() - this.#startedAt) * this.speed
  }

  /** Real milliseconds, for everything the broker takes part in. */
  realNow(): number {
    return performance.now()
  }

  /** The real moment (as of `realNow`) of a virtual time. */
  realAt(virtualMs: number): number {
    return this.#startedAt + virtualMs / this.speed
  }

  /** What a device's own clock shows at a virtual time: Unix time in milliseconds. */
  deviceTime(virtualMs: number): number {
    return Math.round(this.#epochMs + virtualMs)
  }
}

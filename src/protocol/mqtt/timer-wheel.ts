import type { Clock } from '../../core/clock.ts'

/** Milliseconds per slot: how late a deadline may be noticed. */
const TICK_MS = 250
const SLOTS = 256

/** Something with a deadline. Each is in the wheel at most once. */
export interface Timed {
  /** Slot it is in, -1: none; belongs to the wheel. */
  wheelSlot: number
  /** Its time may have come, by the monotonic clock: it looks for itself what is due and calls `schedule` again if it needs to. */
  timeReached(nowMs: number): void
}

/**
 * All deadlines of all connections on one timer, which sleeps until the next slot that holds any: a thousand idle clients wake the process
 * four times a second at most. A deadline that moves with every packet is not moved here; its owner is asked at the old
 * one and schedules itself anew. Deadlines further away than one turn (64 s) are asked once per turn.
 */
export class TimerWheel {
  readonly #clock: Clock
  readonly #slots: Set<Timed>[] = []
  #count = 0
  /** Tick up to which everything has been called. */
  #doneTick: number
  #timer: NodeJS.Timeout | null = null
  #timerTick = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#doneTick = Math.floor(clock.monotonicMs() / TICK_MS)
    for (let slot = 0; slot < SLOTS; slot++) this.#slots.push(new Set())
  }

  /** `timed.timeReached` is called at or within a tick after `dueMs`, or earlier if that lies further away than one turn. */
  schedule(timed: Timed, dueMs: number): void {
    this.cancel(timed)
    if (this.#count === 0) this.#doneTick = Math.max(this.#doneTick, Math.floor(this.#clock.monotonicMs() / TICK_MS))
    const tick = Math.min(Math.max(Math.ceil(dueMs / TICK_MS), this.#doneTick + 1), this.#doneTick + SLOTS - 1)
    timed.wheelSlot = tick % SLOTS
    this.#slots[timed.wheelSlot]?.add(timed)
    this.#count++
    if (this.#timer === null || tick < this.#timerTick) this.#sleepUntil(tick)
  }

  cancel(timed: Timed): void {
    if (timed.wheelSlot < 0) return
    this.#slots[timed.wheelSlot]?.delete(timed)
    timed.wheelSlot = -1
    this.#count--
  }

  /** Calls everything whose time has come by the clock. */
  turn(): void {
    const nowMs = this.#clock.monotonicMs()
    const nowTick = Math.floor(nowMs / TICK_MS)
    // After a long sleep of the process one turn visits every slot.
    const first = Math.max(this.#doneTick + 1, nowTick - SLOTS + 1)
    for (let tick = first; tick <= nowTick; tick++) {
      // What is scheduled meanwhile lands in a later slot.
      this.#doneTick = tick
      const slot = this.#slots[tick % SLOTS]
      if (slot === undefined || slot.size === 0) continue
      const due = [...slot]
      slot.clear()
      this.#count -= due.length
      for (const timed of due) timed.wheelSlot = -1
      for (const timed of due) timed.timeReached(nowMs)
    }
    this.#sleep()
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    for (const slot of this.#slots) {
      for (const timed of slot) timed.wheelSlot = -1
      slot.clear()
    }
    this.#count = 0
  }

  #sleep(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#count === 0) return
    let tick = this.#doneTick + 1
    while (this.#slots[tick % SLOTS]?.size === 0) tick++
    this.#sleepUntil(tick)
  }

  #sleepUntil(tick: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timerTick = tick
    const waitMs = Math.max(1, Math.ceil(tick * TICK_MS - this.#clock.monotonicMs()))
    this.#timer = setTimeout(() => this.turn(), waitMs)
    // The listeners keep the process alive, not a deadline.
    this.#timer.unref()
  }
}

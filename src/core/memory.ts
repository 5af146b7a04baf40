/** Once the limit has been reached for so many seconds, queues lose messages, and after so many their clients are closed. */
const GIVE_WAY_SECONDS = 2
const JAM_SECONDS = 5
/** Reads of what is on disk at once: each brings up to half a mebibyte into memory. */
const READS_AT_ONCE = 4

/** Holds message bytes, and can do with less. */
export interface MemoryHolder {
  readonly heldBytes: number
  /** Lets go of what is on disk too. */
  evict(): void
  /** Loses part of what it holds, if its policy permits a loss. */
  giveWay(): void
}

/**
 * `limits.memory`: queues' windows, memory queues and outputs together, in bytes. Whoever holds message bytes takes them here and
 * gives them back. From the limit on publishers pause; below nine tenths of it they go on. What began below the limit may go beyond it, by a quarter at most
 * (`hasRoomFor`): past that nothing is taken.
 *
 * Relief, while the limit is reached: queues let go at once of what they have on disk too. Where that is not enough after a second or two, the longest queues that
 * die with the process lose their oldest messages; after five the clients that hold most are closed. So who takes too little loses before those wait for long who send.
 */
export class MemoryBudget {
  readonly limitBytes: number
  #used = 0
  #isPressed = false
  /** How often the limit was reached. */
  pressed = 0
  readonly #holders = new Set<MemoryHolder>()
  /** How often in a row relief was asked for while the limit was reached. */
  #pressedSeconds = 0
  #reads = 0
  readonly #readers: (() => void)[] = []
  /** Called once when the budget falls below nine tenths after having been above the limit. */
  onRelief: (() => void) | null = null
  /** Called every second while what is held by clients who take too little keeps the limit reached: with how many bytes it would take to relieve it. */
  onJam: ((bytes: number) => void) | null = null

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get usedBytes(): number {
    return this.#used
  }

  /** True from reaching the limit until nine tenths are undershot: stop reading publishers. */
  get isPressed(): boolean {
    return this.#isPressed
  }

  /** More than half is in use: windows of idle queues shrink. */
  get isTight(): boolean {
    return this.#used * 2 > this.limitBytes
  }

  /** So many bytes more stay within a quarter above the limit. */
  hasRoomFor(bytes: number): boolean {
    return (this.#used + bytes) * 4 <= this.limitBytes * 5
  }

  take(bytes: number): void {
    this.#used += bytes
    if (this.#used < this.limitBytes || this.#isPressed) return
    this.#isPressed = true
    this.pressed++
    // Not now: somebody is in the middle of appending.
    setImmediate(() => this.#evict())
  }

  give(bytes: number): void {
    this.#used -= bytes
    if (!this.#isPressed || this.#used >= this.#reliefBytes) return
    this.#isPressed = false
    this.onRelief?.()
    this.#letRead()
  }

  get #reliefBytes(): number {
    return this.limitBytes * 0.9
  }

  // ---- relief

  /** Is asked for relief from now on, until `leave`. */
  join(holder: MemoryHolder): void {
    this.#holders.add(holder)
  }

  leave(holder: MemoryHolder): void {
    this.#holders.delete(holder)
  }

  #evict(): void {
    for (const holder of this.#holders) {
      if (!this.#isPressed) return
      holder.evict()
    }
  }

  /** Called every second. */
  relieve(): void {
    this.#evict()
    this.#pressedSeconds = this.#isPressed ? this.#pressedSeconds + 1 : 0
    if (this.#pressedSeconds >= GIVE_WAY_SECONDS) this.#giveWay()
    if (this.#pressedSeconds >= JAM_SECONDS) this.onJam?.(this.#used - this.#reliefBytes)
  }

  /** Those that hold most come first. */
  #giveWay(): void {
    const held = [...this.#holders].map(holder => ({ holder, bytes: holder.heldBytes }))
    for (const { holder } of held.sort((a, b) => b.bytes - a.bytes)) {
      if (!this.#isPressed) return
      holder.giveWay()
    }
  }

  // ---- reading

  /** Runs a read of what is to stay in memory for a while, in turn: a few at once, and none while the limit is reached. */
  async read<T>(read: () => Promise<T>): Promise<T> {
    const turn = new Promise<void>(resolve => this.#readers.push(resolve))
    this.#letRead()
    await turn
    try {
      return await read()
    } finally {
      this.#reads--
      // What was read counts by then.
      setImmediate(() => this.#letRead())
    }
  }

  #letRead(): void {
    while (!this.#isPressed && this.#reads < READS_AT_ONCE) {
      const next = this.#readers.shift()
      if (next === undefined) return
      this.#reads++
      next()
    }
  }
}

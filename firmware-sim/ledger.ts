import { type NumberRange, NumberSet, toRanges } from './number-set.ts'

/** What a device knows about its messages, as plain data: inclusive ranges of sequence numbers. */
export interface LedgerSnapshot {
  readonly device: string
  readonly topic: string
  readonly qos: 0 | 1
  /** The broker answered PUBACK: these must arrive upstream. */
  readonly acknowledged: readonly NumberRange[]
  /** Sent at least once and not acknowledged: these may arrive. At QoS 0 all of them. */
  readonly unacknowledged: readonly NumberRange[]
}

/** What one device believes was accepted: the ground truth that faults are measured against. Sequence numbers start at 1. */
export class Ledger {
  readonly #device: string
  readonly #topic: string
  readonly qos: 0 | 1
  readonly #sent = new NumberSet()
  readonly #acknowledged = new NumberSet()

  constructor({ device, topic, qos }: { device: string; topic: string; qos: 0 | 1 }) {
    this.#device = device
    this.#topic = topic
    this.qos = qos
  }

  /** Messages sent at least once. */
  get sent(): number {
    return this.#sent.size
  }

  get acknowledged(): number {
    return this.#acknowledged.size
  }

  noteSent(sequence: number): void {
    this.#sent.add(sequence)
  }

  /** A message can be acknowledged only if it was sent; anything else is a mistake of the simulator. */
  noteAcknowledged(sequence: number): void {
    if (!this.#sent.has(sequence)) throw new TypeError(`${this.#device}: ${sequence} was acknowledged but never sent`)
    this.#acknowledged.add(sequence)
  }

  snapshot(): LedgerSnapshot {
    return {
      device: this.#device,
      topic: this.#topic,
      qos: this.qos,
      acknowledged: this.#acknowledged.ranges(),
      unacknowledged: toRanges(this.#unacknowledged()),
    }
  }

  *#unacknowledged(): Generator<number> {
    for (const sequence of this.#sent.values()) if (!this.#acknowledged.has(sequence)) yield sequence
  }
}

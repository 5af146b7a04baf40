import { PacketType } from './frame.ts'

const PUBACK = PacketType.puback << 4
const FIRST_CAPACITY = 8

/**
 * Publishes, or releases, of one connection that have not been answered, in order of arrival: how they are answered (first byte of PUBACK, PUBREC or PUBCOMP), packet id, ticket (0: safe
 * already), answer (one byte, see reply-code.ts). Grows by doubling; the connection never puts in more than `limits.receive_max`.
 */
export class AckRing {
  count = 0
  /** Those of QoS 1 among them. */
  pubacks = 0
  #head = 0
  #packets = new Uint8Array(0)
  #ids = new Uint16Array(0)
  #tickets = new Float64Array(0)
  #answers = new Uint8Array(0)

  get headPacket(): number {
    return this.#packets[this.#head] ?? 0
  }

  get headId(): number {
    return this.#ids[this.#head] ?? 0
  }

  get headTicket(): number {
    return this.#tickets[this.#head] ?? 0
  }

  get headAnswer(): number {
    return this.#answers[this.#head] ?? 0
  }

  push(packet: number, id: number, ticket: number, answer: number): void {
    if (this.count === this.#ids.length) this.#grow()
    const slot = (this.#head + this.count) & (this.#ids.length - 1)
    this.#packets[slot] = packet
    this.#ids[slot] = id
    this.#tickets[slot] = ticket
    this.#answers[slot] = answer
    this.count++
    if (packet === PUBACK) this.pubacks++
  }

  /**
   * Gives the publish with this ticket another answer, which needs to wait for nothing but its turn; returns its slot, -1: there is none. Tickets rise, but for
   * those that are 0.
   */
  answer(ticket: number, answer: number): number {
    const mask = this.#ids.length - 1
    for (let n = 0; n < this.count; n++) {
      const slot = (this.#head + n) & mask
      if (this.#tickets[slot] !== ticket) continue
      this.#tickets[slot] = 0
      this.#answers[slot] = answer
      return slot
    }
    return -1
  }

  packetAt(slot: number): number {
    return this.#packets[slot] ?? 0
  }

  idAt(slot: number): number {
    return this.#ids[slot] ?? 0
  }

  /** The oldest has to wait for another ticket. */
  set headTicket(ticket: number) {
    this.#tickets[this.#head] = ticket
  }

  /** Drops the oldest. */
  shift(): void {
    if (this.headPacket === PUBACK) this.pubacks--
    this.#head = (this.#head + 1) & (this.#ids.length - 1)
    this.count--
  }

  #grow(): void {
    const capacity = Math.max(FIRST_CAPACITY, this.#ids.length * 2)
    const packets = new Uint8Array(capacity)
    const ids = new Uint16Array(capacity)
    const tickets = new Float64Array(capacity)
    const answers = new Uint8Array(capacity)
    for (let n = 0; n < this.count; n++) {
      const slot = (this.#head + n) & (this.#ids.length - 1)
      packets[n] = this.#packets[slot] ?? 0
      ids[n] = this.#ids[slot] ?? 0
      tickets[n] = this.#tickets[slot] ?? 0
      answers[n] = this.#answers[slot] ?? 0
    }
    this.#head = 0
    this.#packets = packets
    this.#ids = ids
    this.#tickets = tickets
    this.#answers = answers
  }
}

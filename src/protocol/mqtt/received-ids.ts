import type { Publisher } from '../../core/consumer.ts'
import type { Router } from '../../core/router.ts'
import type { SessionIds } from '../../core/session-ids.ts'
import type { PublisherHandle } from '../../core/tickets.ts'
import { PacketIdSet } from './packet-id-set.ts'

/**
 * Packet ids of the QoS 2 messages of one client that have been taken in and whose PUBREL has not come: a PUBLISH with one of them is no new message
 * [MQTT-4.3.3-10].
 *
 * A session that outlives its connection keeps them on disk. There an id is `unsafe` from the moment its message is accepted until a commit has returned that kept
 * both; its tickets are the session's and not the connection's, so that what becomes of a message is known after its connection, too.
 */
export class ReceivedIds implements Publisher {
  /** Whose tickets those of QoS 2 are; null: the connection's, and nothing of this is kept. */
  readonly handle: PublisherHandle | null
  /** The connection there is: hears what becomes of the tickets. */
  connection: Publisher | null = null
  readonly #router: Router
  readonly #held = new PacketIdSet()
  readonly #unsafe = new PacketIdSet()
  /** Those that are unsafe, with their tickets, which rise. */
  #ids: number[] = []
  #tickets: number[] = []
  /** What will remain of both, in their order, when the commit under way has returned: these, and what came after so many. */
  #remaining: number[] = []
  #seen = 0

  /** `kept` is what keeps them on disk; null: they end with the connection. */
  constructor(router: Router, kept: SessionIds | null) {
    this.#router = router
    this.handle = kept === null ? null : router.register(this, kept)
  }

  /** Those on disk. */
  restore(ids: readonly number[]): void {
    for (const id of ids) this.#held.add(id)
  }

  get size(): number {
    return this.#held.size
  }

  has(id: number): boolean {
    return this.#held.has(id)
  }

  add(id: number): void {
    this.#held.add(id)
  }

  /** False if it is not held. */
  delete(id: number): boolean {
    return this.#held.delete(id)
  }

  /** The message of this id has been taken in; only where ids are kept. */
  accepted(id: number, ticket: number): void {
    this.#unsafe.add(id)
    this.#ids.push(id)
    this.#tickets.push(ticket)
  }

  isUnsafe(id: number): boolean {
    return this.#unsafe.has(id)
  }

  /** Those to be found after a crash, if all messages accepted by now are on disk: not those that wait for an upstream, and may be nowhere then. */
  toKeep(): number[] {
    this.#seen = this.#ids.length
    this.#remaining = []
    const missing = new Set<number>()
    for (const [n, id] of this.#ids.entries()) {
      if (!this.#router.isUnconfirmed(this.#tickets[n] ?? 0)) continue
      this.#remaining.push(n)
      missing.add(id)
    }
    return this.#held.ids().filter(id => !missing.has(id))
  }

  /** What `toKeep` gave last is on disk. */
  kept(): void {
    const left = [...this.#remaining]
    for (let n = this.#seen; n < this.#ids.length; n++) left.push(n)
    this.#ids = left.map(n => this.#ids[n] ?? 0)
    this.#tickets = left.map(n => this.#tickets[n] ?? 0)
    this.#unsafe.clear()
    for (const id of this.#ids) this.#unsafe.add(id)
  }

  ticketsSafe(): void {
    this.connection?.ticketsSafe()
  }

  /** The message is nowhere, and its id free: whoever sends it again sends a new one [MQTT-4.3.3-9]. */
  ticketRefused(ticket: number): void {
    const n = this.#tickets.indexOf(ticket)
    if (n >= 0) this.#held.delete(this.#ids[n] ?? 0)
    this.connection?.ticketRefused(ticket)
  }

  resume(): void {
    // The connection hears of it by itself.
  }

  /** The session is over. */
  close(): void {
    this.#held.clear()
    this.#unsafe.clear()
    if (this.handle !== null) this.#router.unregister(this.handle)
  }
}

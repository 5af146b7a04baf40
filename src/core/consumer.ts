import type { Run } from './run.ts'

/**
 * Bit 0 of a message's note, its class (design.md section 2, "Order"). In the queue: the link was forwarding when the message was accepted. As delivered by a queue with
 * classes: it goes out as live, otherwise as backlog.
 */
export const NOTE_LIVE = 1

/**
 * Takes messages from a queue while it has credit. A session's pump, the bridge, later AMQP and STOMP consumers.
 * Each delivery is settled exactly once by `queue.settle`, `queue.requeue` or `queue.reject` with its position.
 */
export interface Consumer {
  /** How many more unsettled deliveries it takes now. When this rises from 0, the consumer calls `queue.pump()`. */
  readonly credit: number
  /**
   * One message in stored form (model/message.ts) beginning at `at`. The bytes are valid during the call only.
   * `note` is what the bindings gave (see Binding.note) or-ed with `queue.noteNow` at acceptance; `attempts` how often it was delivered before, 0: never.
   */
  deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void
}

/**
 * How the consumer of an outbox takes the two classes of its messages. A live message has NOTE_LIVE and was accepted less than `liveMs` ago; whatever else is ready is
 * backlog. Each class keeps its own order.
 */
export interface Classes {
  /** A live message that has waited longer is backlog for good, milliseconds. */
  readonly liveMs: number
  /** Nothing overtakes: a message of either class waits for all before it. */
  readonly isStrict: boolean
  /** How many more live messages it takes now. When this or `backlogCredit` rises from 0, the consumer calls `queue.pump()`. */
  readonly liveCredit: number
  /** How many more of the backlog. */
  readonly backlogCredit: number
}

/** Receives QoS 0 runs at once, without a queue: an MQTT connection with a live binding. */
export interface LiveReceiver {
  /** `topic` is the decoded topic; `note` that of its bindings. May drop by its own policy and count it; never throws, never blocks. */
  deliverRun(run: Run, topic: string, note: number): void
}

/** Waits for tickets: a connection with a ring of unanswered publishes. */
export interface Publisher {
  /** Some of its tickets became safe since the last call; called once per commit or batch of confirms. */
  ticketsSafe(): void
  /** This one never will be: an upstream that had to confirm the message did not (UPSTREAM_UNCONFIRMED). */
  ticketRefused(ticket: number): void
  /** Memory or a held-back run was relieved: reading may go on, refused runs may be tried again. */
  resume(): void
}

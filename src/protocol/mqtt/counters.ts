import type { ErrorCode } from '../../model/error.ts'
import type { LimitName } from './limits.ts'
import type { Reason } from './protocol-error.ts'

/** Plain numbers counted where things happen and read when metrics are scraped. */
export class MqttCounters {
  /** Connections accepted by CONNACK, since start. */
  connected = 0
  /** Connections that ended without one. */
  refusedConnections = 0
  /** Connections that ended because the client broke the protocol or asked for what isn't there. */
  protocolErrors = 0
  takenOver = 0
  keepAliveTimeouts = 0
  /** How often a client was refused something, or closed, because a limit was reached. */
  readonly limitsReached = new Map<LimitName, number>()
  /** Clients closed because they did not read what they were sent. */
  slowClients = 0
  /** Most clients connected at once. */
  mostClients = 0
  bytesIn = 0
  bytesOut = 0
  /** Packets that are no PUBLISH. */
  controlIn = 0
  controlOut = 0
  /** PUBLISH packets taken in, by QoS. */
  readonly messagesIn: [number, number, number] = [0, 0, 0]
  /** PUBLISH packets handed to outputs, by QoS. */
  readonly messagesOut: [number, number, number] = [0, 0, 0]
  /** QoS 2 publishes that had been taken before and were not taken again. */
  repeatedPublishes = 0
  /** Publishes refused, by reason; one held back counts each time it is tried. */
  readonly refusedPublishes = new Map<ErrorCode, number>()
  /** Filters of SUBSCRIBE refused, by reason code. */
  readonly refusedSubscriptions = new Map<Reason, number>()
  /** Subscriptions ended because the rules do not allow them any more. */
  revokedSubscriptions = 0
  /** QoS 0 messages a client did not get: its output was full; all memory was; the message was larger than it takes; its session had no connection. */
  readonly droppedBy = { output_full: 0, memory_full: 0, too_large: 0, not_connected: 0 }
  /** Acknowledgements of packet ids that are not in flight. */
  unknownAcks = 0
  /** Wills that could not be published. */
  willsRefused = 0

  refusePublishes(code: ErrorCode, count: number): void {
    this.refusedPublishes.set(code, (this.refusedPublishes.get(code) ?? 0) + count)
  }

  refuseSubscription(reason: Reason): void {
    this.refusedSubscriptions.set(reason, (this.refusedSubscriptions.get(reason) ?? 0) + 1)
  }

  reached(limit: LimitName): void {
    this.limitsReached.set(limit, (this.limitsReached.get(limit) ?? 0) + 1)
  }

  get dropped(): number {
    return Object.values(this.droppedBy).reduce((sum, count) => sum + count, 0)
  }

  get sentMessages(): number {
    return this.messagesOut[0] + this.messagesOut[1] + this.messagesOut[2]
  }
}

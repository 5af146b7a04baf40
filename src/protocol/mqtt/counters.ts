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
  /** QoS 1 and 2 publishes refused before the acknowledgement; one held back counts each time it is tried. */
  refusedPublishes = 0
  /** QoS 0 messages a client did not get: its output was full; all memory was; the message was larger than it takes; its session had no connection. */
  readonly droppedBy = { output_full: 0, memory_full: 0, too_large: 0, not_connected: 0 }
  /** Acknowledgements of packet ids that are not in flight. */
  unknownAcks = 0
  /** Wills that could not be published. */
  willsRefused = 0

  get dropped(): number {
    return Object.values(this.droppedBy).reduce((sum, count) => sum + count, 0)
  }

  get sentMessages(): number {
    return this.messagesOut[0] + this.messagesOut[1] + this.messagesOut[2]
  }
}

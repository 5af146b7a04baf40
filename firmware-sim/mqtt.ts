import { generate, type Packet, parser } from 'mqtt-packet'
import type { Link, LinkReceiver, Radio } from './radio.ts'

export interface MqttEvents {
  onConnected(): void
  onAcknowledged(packetId: number): void
  /** Any packet came: the connection lives. */
  onHeard(): void
  onClosed(): void
}

export interface Publish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
  readonly dup: boolean
  /** 0 at QoS 0, which has none. */
  readonly packetId: number
}

const PINGREQ = generate({ cmd: 'pingreq' })
const DISCONNECT = generate({ cmd: 'disconnect' })

/** The MQTT 3.1.1 stack of a device: one connection, clean session. */
export class MqttConnection implements LinkReceiver {
  readonly #clientId: string
  readonly #keepAliveS: number
  readonly #events: MqttEvents
  readonly #link: Link
  readonly #parser = parser({ protocolVersion: 4 })

  constructor(options: { radio: Radio; clientId: string; keepAliveS: number; events: MqttEvents }) {
    this.#clientId = options.clientId
    this.#keepAliveS = options.keepAliveS
    this.#events = options.events
    this.#parser.on('packet', packet => this.#receive(packet))
    // A broker that sends something else than MQTT is as good as gone.
    this.#parser.on('error', () => this.#link.lose())
    this.#link = options.radio.open(this)
  }

  get isCongested(): boolean {
    return this.#link.isCongested
  }

  onOpen(): void {
    const connect = { cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true } as const
    this.#link.write(generate({ ...connect, clientId: this.#clientId, keepalive: this.#keepAliveS }))
  }

  onBytes(bytes: Buffer): void {
    this.#events.onHeard()
    this.#parser.parse(bytes)
  }

  onClosed(): void {
    this.#events.onClosed()
  }

  publish({ topic, payload, qos, dup, packetId }: Publish): void {
    this.#link.write(generate({ cmd: 'publish', topic, payload, qos, dup, retain: false, messageId: packetId }))
  }

  ping(): void {
    this.#link.write(PINGREQ)
  }

  /** Says goodbye and closes. */
  disconnect(): void {
    this.#link.write(DISCONNECT)
    this.#link.end()
  }

  /** Gives the connection up without a word. */
  abandon(): void {
    this.#link.abandon()
  }

  #receive(packet: Packet): void {
    if (packet.cmd === 'connack') {
      if (packet.returnCode === 0) this.#events.onConnected()
      else this.#link.lose()
    } else if (packet.cmd === 'puback' && packet.messageId !== undefined) {
      this.#events.onAcknowledged(packet.messageId)
    }
  }
}

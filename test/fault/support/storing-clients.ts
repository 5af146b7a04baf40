import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import mqttPacket, { type Packet } from 'mqtt-packet'

/*
 * Two clients of MQTT 3.1.1 that keep their part of a session over its connections (section 4.1), as a device with flash does: whatever
 * becomes of a connection or of the gateway, they go on where they were. So what they have sent and received says whether QoS 2 was exactly once.
 */

/** One connection of a session that outlives it. */
class Connection {
  readonly isPresent: boolean
  readonly #socket: Socket

  private constructor(socket: Socket, isPresent: boolean) {
    this.#socket = socket
    this.isPresent = isPresent
  }

  /**
   * Resolves with CONNACK; rejects if the connection ends before it. `onOpen` is called at once with the connection: the packets behind CONNACK may lie in the same
   * piece of bytes, and their answers belong to this connection.
   */
  static open(
    port: number,
    clientId: string,
    { onOpen, onPacket }: { onOpen: (connection: Connection) => void; onPacket: (packet: Packet) => void },
  ): Promise<Connection> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    // Its end is what the gateway is killed for.
    socket.on('error', () => undefined)
    const parser = mqttPacket.parser({ protocolVersion: 4 })
    const opened = new Promise<Connection>((resolve, reject) => {
      socket.once('close', () => reject(new Error(`${clientId} was not let in`)))
      parser.on('packet', packet => {
        if (packet.cmd !== 'connack') {
          onPacket(packet)
          return
        }
        const connection = new Connection(socket, packet.sessionPresent)
        onOpen(connection)
        resolve(connection)
      })
    })
    socket.on('data', chunk => parser.parse(chunk))
    socket.once('connect', () =>
      socket.write(
        mqttPacket.generate({
          cmd: 'connect',
          protocolId: 'MQTT',
          protocolVersion: 4,
          clean: false,
          clientId,
          keepalive: 0,
        }),
      ),
    )
    return opened
  }

  send(packet: Packet): void {
    if (!this.#socket.destroyed) this.#socket.write(mqttPacket.generate(packet, { protocolVersion: 4 }))
  }

  async close(): Promise<void> {
    if (this.#socket.closed) return
    this.#socket.destroy()
    await once(this.#socket, 'close')
  }
}

/** Publishes the numbers 0, 1, 2, … at QoS 2, some at once. */
export class StoringPublisher {
  /** Numbers given to the session so far. */
  published = 0
  readonly #clientId: string
  readonly #topic: string
  readonly #window: number
  /** By packet id, in the order of their first PUBLISH: the number, and whether its PUBREC has come. */
  readonly #open = new Map<number, { readonly number: number; isReceived: boolean }>()
  #nextId = 1
  #connection: Connection | null = null
  #isPublishing = false

  constructor({ clientId, topic, window }: { clientId: string; topic: string; window: number }) {
    this.#clientId = clientId
    this.#topic = topic
    this.#window = window
  }

  /** Messages whose PUBCOMP has not come. */
  get unfinished(): number {
    return this.#open.size
  }

  /** Connects, sends what is unacknowledged again, and publishes until `pause`. Resolves with session present. */
  async run(port: number): Promise<boolean> {
    const connection = await this.#openConnection(port)
    for (const [id, { number, isReceived }] of this.#open) {
      if (isReceived) connection.send({ cmd: 'pubrel', messageId: id })
      else this.#publish(id, number, true)
    }
    this.#isPublishing = true
    this.#fill()
    return connection.isPresent
  }

  #openConnection(port: number): Promise<Connection> {
    return Connection.open(port, this.#clientId, {
      onOpen: connection => {
        this.#connection = connection
      },
      onPacket: packet => this.#take(packet),
    })
  }

  /** Begins nothing new. */
  pause(): void {
    this.#isPublishing = false
  }

  async disconnect(): Promise<void> {
    await this.#connection?.close()
  }

  #fill(): void {
    while (this.#isPublishing && this.#open.size < this.#window) {
      while (this.#open.has(this.#nextId)) this.#nextId = (this.#nextId % 0xffff) + 1
      const id = this.#nextId
      const number = this.published++
      this.#open.set(id, { number, isReceived: false })
      this.#publish(id, number, false)
      this.#nextId = (id % 0xffff) + 1
    }
  }

  #publish(messageId: number, number: number, dup: boolean): void {
    this.#connection?.send({
      cmd: 'publish',
      topic: this.#topic,
      payload: `${number}`,
      qos: 2,
      dup,
      retain: false,
      messageId,
    })
  }

  #take(packet: Packet): void {
    if (packet.cmd !== 'pubrec' && packet.cmd !== 'pubcomp') throw new Error(`the publisher was sent ${packet.cmd}`)
    const id = packet.messageId ?? 0
    const open = this.#open.get(id)
    if (packet.cmd === 'pubrec') {
      if (open !== undefined) open.isReceived = true
      this.#connection?.send({ cmd: 'pubrel', messageId: id })
      return
    }
    if (open?.isReceived === true) this.#open.delete(id)
    this.#fill()
  }
}

/** Notes each message of a subscription at QoS 2 when it owns it: at its first PUBLISH. */
export class StoringSubscriber {
  readonly received: number[] = []
  readonly #clientId: string
  readonly #filter: string
  /** Packet ids whose PUBREL has not come [MQTT-4.3.3-10]. */
  readonly #held = new Set<number>()
  #connection: Connection | null = null
  #subscribed: () => void = () => undefined

  constructor({ clientId, filter }: { clientId: string; filter: string }) {
    this.#clientId = clientId
    this.#filter = filter
  }

  /** Connects, and subscribes if the session is new. Resolves with session present. */
  async run(port: number): Promise<boolean> {
    const connection = await this.#openConnection(port)
    if (connection.isPresent) return true
    const subscribed = new Promise<void>(resolve => {
      this.#subscribed = resolve
    })
    connection.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: this.#filter, qos: 2 }] })
    await subscribed
    return false
  }

  #openConnection(port: number): Promise<Connection> {
    return Connection.open(port, this.#clientId, {
      onOpen: connection => {
        this.#connection = connection
      },
      onPacket: packet => this.#take(packet),
    })
  }

  async disconnect(): Promise<void> {
    await this.#connection?.close()
  }

  #take(packet: Packet): void {
    switch (packet.cmd) {
      case 'suback':
        this.#subscribed()
        return
      case 'publish': {
        const { messageId = 0, payload } = packet
        if (packet.qos !== 2) throw new Error(`a message came at QoS ${packet.qos}`)
        if (!this.#held.has(messageId)) this.received.push(Number(payload))
        this.#held.add(messageId)
        this.#connection?.send({ cmd: 'pubrec', messageId })
        return
      }
      case 'pubrel':
        this.#held.delete(packet.messageId ?? 0)
        this.#connection?.send({ cmd: 'pubcomp', messageId: packet.messageId ?? 0 })
        return
      default:
        throw new Error(`the subscriber was sent ${packet.cmd}`)
    }
  }
}

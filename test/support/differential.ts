/*
 * Plays a conversation in bytes against any MQTT broker and writes down what each client heard, in a form that can be compared. What brokers may
 * choose freely is left out: their packet ids, properties of CONNACK, reason strings, whether 5.0 is told why it is closed (section 4.13 lets
 * a server close without a word, or pick a reason), and the code 0x10 for a message nobody has subscribed to.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { PINGREQ } from './wire.ts'

/** What a client does next. Between two steps everybody has been answered. */
export type Step =
  /** Connects, or connects again, and says this. */
  | { readonly client: string; readonly opens: Buffer }
  | { readonly client: string; readonly says: Buffer }
  /** Answers all PUBLISH (PUBACK, PUBREC) or PUBREL (PUBCOMP) it has not answered yet. */
  | { readonly client: string; readonly answers: number; readonly reason?: number }
  /** Is gone without a word. */
  | { readonly client: string; readonly drops: true }
  /** Waits for what may take its time: so many packets on this connection in all. */
  | { readonly client: string; readonly hears: number }

const SILENCE_MS = 1_000
const LOOK_MS = 1
const V5 = 5
const PUBLISH = 3
const PUBREL = 6
const PINGRESP = 13
const DISCONNECT = 14
const NO_SUBSCRIBERS = 0x10

/** A packet that can be looked at. */
interface Packet {
  readonly type: number
  readonly first: number
  readonly body: Buffer
}

class Player {
  readonly name: string
  #socket: Socket | null = null
  #heard: Buffer = Buffer.alloc(0)
  #version = 0
  #isOpen = false
  /** As far as `takeLines` has told. */
  #wasOpen = false
  #isLetIn = false
  #pongs = 0
  #lines: string[] = []
  /** Told by `takeLines`, on this connection. */
  #linesTold = 0
  /** Packet ids of the broker's PUBLISH packets in the order they were first seen, over all connections; 0: answered. */
  readonly #ids: number[] = []
  #toAnswer: { readonly type: number; readonly qos: number; readonly id: number }[] = []

  constructor(name: string) {
    this.name = name
  }

  async open(port: number, said: Buffer): Promise<void> {
    this.drop()
    this.#linesTold = 0
    this.#heard = Buffer.alloc(0)
    this.#toAnswer = []
    this.#isLetIn = false
    this.#version = said[2 + 2 + (said[3] ?? 0)] ?? 0
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket = socket
    socket.on('data', chunk => this.#receive(Buffer.concat([this.#heard, chunk])))
    // A reset is one of the ways to be closed.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      if (this.#socket === socket) this.#isOpen = false
    })
    socket.on('end', () => {
      if (this.#socket === socket) this.#isOpen = false
    })
    await once(socket, 'connect')
    this.#isOpen = true
    this.#wasOpen = true
    socket.write(said)
  }

  say(said: Buffer): void {
    this.#socket?.write(said)
  }

  answer(first: number, reason: number | undefined): void {
    const type = first === 0x70 ? PUBREL : PUBLISH
    const qos = first === 0x40 ? 1 : 2
    const isMeant = (each: { type: number; qos: number }) => each.type === type && (type === PUBREL || each.qos === qos)
    for (const { id } of this.#toAnswer.filter(isMeant)) {
      const code = reason === undefined ? [] : [reason]
      this.#socket?.write(Buffer.from([first, 2 + code.length, id >> 8, id & 0xff, ...code]))
      if (first !== 0x50) this.#ids[this.#ids.indexOf(id)] = 0
    }
    this.#toAnswer = this.#toAnswer.filter(each => !isMeant(each))
  }

  drop(): void {
    this.#socket?.destroy()
    this.#socket = null
    this.#isOpen = false
    this.#wasOpen = false
  }

  /** Waits until everything said has been answered: a ping is, or the connection is closed, or nothing comes. */
  async settle(): Promise<void> {
    if (!this.#isOpen) return
    if (this.#isLetIn) {
      const pongs = this.#pongs + 1
      this.#socket?.write(PINGREQ)
      if (!(await within(() => this.#pongs >= pongs || !this.#isOpen))) this.#lines.push('silence')
    } else if (!(await within(() => this.#isLetIn || !this.#isOpen))) {
      this.#lines.push('silence')
    }
  }

  async hears(count: number): Promise<void> {
    await within(() => this.#linesTold + this.#lines.length >= count)
  }

  /** What it has heard since the last call, PUBLISH first: how answers and deliveries mix is nobody's business. */
  takeLines(): string[] {
    const isDelivery = (line: string) => line.startsWith('PUBLISH') || line.startsWith('PUBREL')
    const lines = [...this.#lines.filter(isDelivery), ...this.#lines.filter(line => !isDelivery(line))]
    if (this.#wasOpen && !this.#isOpen) {
      lines.push('closed')
      this.#wasOpen = false
    }
    this.#linesTold += this.#lines.length
    this.#lines = []
    return lines
  }

  #receive(heard: Buffer): void {
    this.#heard = heard
    for (;;) {
      const packet = nextPacket(this.#heard)
      if (packet === null) return
      this.#heard = this.#heard.subarray(packet.end)
      const line = packet.type === PINGRESP ? '' : this.#describe(packet)
      if (packet.type === PINGRESP) this.#pongs++
      else if (line !== '') this.#lines.push(line)
    }
  }

  /** Empty: nothing to compare. */
  #describe({ type, first, body }: Packet): string {
    const isV5 = this.#version === V5
    const id = type >= 4 && type <= 11 ? body.readUInt16BE(0) : 0
    switch (type) {
      case 2:
        this.#isLetIn = body[1] === 0
        return isV5 && !this.#isLetIn ? '' : `CONNACK ${body[1]}, session ${body[0]}`
      case PUBLISH:
        return this.#describePublish(first, body, isV5)
      case 4:
      case 5:
      case 7:
        return `${['PUBACK', 'PUBREC', '', 'PUBCOMP'][type - 4]} ${id} ${hex(body[2] === NO_SUBSCRIBERS ? 0 : (body[2] ?? 0))}`
      case PUBREL:
        this.#toAnswer.push({ type, qos: 2, id })
        return `PUBREL #${this.#ordinal(id)} ${hex(body[2] ?? 0)}`
      case 9:
      case 11: {
        const codes = body.subarray(2 + (isV5 ? propertiesBytes(body, 2) : 0))
        return `${type === 9 ? 'SUBACK' : 'UNSUBACK'} ${id} [${[...codes].map(hex).join(' ')}]`
      }
      case DISCONNECT:
        return ''
      default:
        return `packet ${hex(first)}`
    }
  }

  #describePublish(first: number, body: Buffer, isV5: boolean): string {
    const qos = (first >> 1) & 3
    const topicEnd = 2 + body.readUInt16BE(0)
    const topic = body.toString('utf8', 2, topicEnd)
    let at = topicEnd
    let ordinal = ''
    if (qos > 0) {
      const id = body.readUInt16BE(at)
      at += 2
      this.#toAnswer.push({ type: PUBLISH, qos, id })
      ordinal = ` #${this.#ordinal(id)}`
    }
    const propertiesEnd = isV5 ? at + propertiesBytes(body, at) : at
    const properties = body.subarray(isV5 ? at + 1 : at, propertiesEnd)
    const flags = `${(first & 8) === 0 ? '' : ' dup'}${(first & 1) === 0 ? '' : ' retain'}`
    const shown = properties.length === 0 ? '' : ` {${properties.toString('hex')}}`
    return `PUBLISH ${topic} qos ${qos}${flags}${ordinal}${shown} ${JSON.stringify(body.toString('utf8', propertiesEnd))}`
  }

  #ordinal(id: number): number {
    if (!this.#ids.includes(id)) this.#ids.push(id)
    return this.#ids.indexOf(id) + 1
  }
}

const hex = (byte: number): string => byte.toString(16).padStart(2, '0')

/** Bytes of properties with their length. Only packets of less than 128 bytes of properties are played. */
const propertiesBytes = (body: Buffer, at: number): number => (at < body.length ? 1 + (body[at] ?? 0) : 0)

function nextPacket(heard: Buffer): (Packet & { readonly end: number }) | null {
  let length = 0
  for (let at = 1; at < 5; at++) {
    const byte = heard[at]
    if (byte === undefined) return null
    length += (byte & 0x7f) << (7 * (at - 1))
    if (byte >= 0x80) continue
    const end = at + 1 + length
    if (heard.length < end) return null
    const first = heard[0] ?? 0
    return { type: first >> 4, first, body: heard.subarray(at + 1, end), end }
  }
  return null
}

async function within(condition: () => boolean): Promise<boolean> {
  const deadline = performance.now() + SILENCE_MS
  while (!condition()) {
    if (performance.now() > deadline) return false
    await delay(LOOK_MS)
  }
  return true
}

/** Plays the steps against the broker on that port; returns what each client heard, in the order of their names. */
export async function playSteps(port: number, steps: readonly Step[]): Promise<string[]> {
  const players = new Map<string, Player>()
  const heard = new Map<string, string[]>()
  for (const step of steps) {
    const player = players.get(step.client) ?? new Player(step.client)
    players.set(step.client, player)
    if ('opens' in step) await player.open(port, step.opens)
    else if ('says' in step) player.say(step.says)
    else if ('answers' in step) player.answer(step.answers, step.reason)
    else if ('drops' in step) player.drop()
    else await player.hears(step.hears)
    await player.settle()
    // Twice: what the first one's answer set off for the others has reached them after the second.
    for (let round = 0; round < 2; round++) for (const each of players.values()) await each.settle()
    for (const each of players.values()) heard.set(each.name, [...(heard.get(each.name) ?? []), ...each.takeLines()])
  }
  for (const player of players.values()) player.drop()
  return [...heard.keys()].sort().flatMap(name => (heard.get(name) ?? []).map(line => `${name}: ${line}`))
}

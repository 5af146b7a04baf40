import type { Clock } from './clock.ts'
import type { Firmware, Sampler } from './firmware.ts'
import { Flash } from './flash.ts'
import { Ledger } from './ledger.ts'
import { MqttConnection, type MqttEvents } from './mqtt.ts'
import type { Radio } from './radio.ts'
import type { Random } from './random.ts'

interface StoredReading {
  readonly sequence: number
  readonly payload: Buffer
  /** Sent before, over a connection that is gone: goes out with DUP. */
  wasSent: boolean
}

/** A PUBLISH that waits for its PUBACK. */
interface InFlight {
  readonly sequence: number
  readonly position: number
  readonly sentAt: number
}

/** Times are real, as of `clock.realNow()`. */
type State =
  | { readonly kind: 'off' }
  | { readonly kind: 'waiting'; readonly until: number }
  | { readonly kind: 'connecting'; readonly since: number; readonly connection: MqttConnection }
  | { readonly kind: 'online'; readonly connection: MqttConnection }

const HIGHEST_PACKET_ID = 65_535
/** PINGREQ leaves when this share of the keep-alive has passed in silence. */
const PING_AT = 0.75
/** How long a device that is switched off waits for the broker to close the connection. */
const GOODBYE_MS = 1000
/** setTimeout's longest delay. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1

export interface DeviceParts {
  readonly id: string
  readonly firmware: Firmware
  readonly clock: Clock
  readonly radio: Radio
  readonly random: Random
}

/**
 * A device in the field: power on → connect → sample → store → publish → sleep. All it waits for (next sample, weather, answers,
 * reconnect) is on one timer. Readings fall due along virtual time; if the timer is late it catches up, so that a run holds the
 * same readings whatever the machine's load.
 */
export class Device {
  readonly id: string
  readonly ledger: Ledger
  /** Readings taken. */
  sampled = 0
  /** Readings that could not be sent and are not kept (no flash). */
  discarded = 0
  /** Connections made after the first. */
  reconnects = 0

  readonly #firmware: Firmware
  readonly #topic: string
  readonly #clock: Clock
  readonly #radio: Radio
  readonly #random: Random
  readonly #sample: Sampler
  readonly #flash: Flash<StoredReading> | null
  /** By packet id, in the order of sending. */
  readonly #inFlight = new Map<number, InFlight>()
  #state: State = { kind: 'off' }
  #isSampling = false
  #nextSampleAt = Number.POSITIVE_INFINITY
  /** Position in flash of the next reading to send over this connection. */
  #sendPosition = 0
  #lastPacketId = 0
  #connections = 0
  #failures = 0
  #lastSentAt = 0
  #lastHeardAt = 0
  /** A PINGREQ without an answer yet; null: none. */
  #pingedAt: number | null = null
  #timer: NodeJS.Timeout | null = null
  #onOff: (() => void) | null = null

  constructor({ id, firmware, clock, radio, random }: DeviceParts) {
    this.id = id
    this.#firmware = firmware
    this.#topic = firmware.topic(id)
    this.#clock = clock
    this.#radio = radio
    this.#random = random
    this.#sample = firmware.powerOn(random.fork('sensor'))
    this.#flash = firmware.flashReadings === 0 ? null : new Flash(firmware.flashReadings)
    if (firmware.qos === 1 && this.#flash === null) throw new TypeError(`${firmware.model}: QoS 1 needs flash`)
    this.ledger = new Ledger({ device: id, topic: this.#topic, qos: firmware.qos })
  }

  get isOnline(): boolean {
    return this.#state.kind === 'online'
  }

  /** Readings in flash that are not acknowledged, sent or not. */
  get stored(): number {
    return this.#flash === null ? 0 : this.#flash.end - this.#flash.first
  }

  /** Unacknowledged readings that a full flash has overwritten. */
  get overwritten(): number {
    return this.#flash?.overwritten ?? 0
  }

  /** Begins to sample, within the first period of virtual time, and, after `delayMs` of real time, to connect. */
  powerOn(delayMs: number): void {
    this.#isSampling = true
    this.#nextSampleAt = this.#random.between(0, this.#firmware.samplePeriodMs)
    this.#state = { kind: 'waiting', until: this.#clock.realNow() + delayMs }
    this.#sleep()
  }

  /** Takes no more readings, but goes on sending what it has. */
  stopSampling(): void {
    this.#isSampling = false
  }

  /** From now on the radio loses no connection. */
  clearWeather(): void {
    this.#radio.clear()
  }

  /** Says goodbye if connected and stops for good; resolves when the connection is closed, after 1 s at the latest. */
  async powerOff(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#isSampling = false
    const state = this.#state
    this.#state = { kind: 'off' }
    if (state.kind === 'online') {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#onOff = resolve
      const timer = setTimeout(resolve, GOODBYE_MS)
      state.connection.disconnect()
      await promise
      clearTimeout(timer)
    }
    this.#radio.off()
  }

  // ---- The loop

  #wake(): void {
    this.#radio.advance()
    this.#takeSamples()
    this.#minds()
    this.#send()
    this.#sleep()
  }

  #sleep(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#state.kind === 'off') return
    const delayMs = Math.min(Math.max(1, this.#nextDueAt() - this.#clock.realNow()), LONGEST_SLEEP_MS)
    this.#timer = setTimeout(() => this.#wake(), delayMs)
  }

  /** The next moment (real) at which something has to be done unasked. */
  #nextDueAt(): number {
    const state = this.#state
    let due = this.#clock.realAt(this.#radio.nextChangeAt)
    if (this.#isSampling) due = Math.min(due, this.#clock.realAt(this.#nextSampleAt))
    switch (state.kind) {
      case 'off':
        return Number.POSITIVE_INFINITY
      case 'waiting':
        return Math.min(due, state.until)
      case 'connecting':
        return Math.min(due, state.since + this.#firmware.answerTimeoutMs)
      case 'online':
        return Math.min(due, this.#answerDueAt(), this.#pingDueAt())
    }
    state satisfies never
  }

  #takeSamples(): void {
    const { samplePeriodMs } = this.#firmware
    while (this.#isSampling && this.#nextSampleAt <= this.#clock.now()) {
      const reading = this.#sample(samplePeriodMs)
      this.sampled++
      const at = this.#clock.deviceTime(this.#nextSampleAt)
      this.#nextSampleAt += samplePeriodMs
      this.#store(Buffer.from(JSON.stringify({ device: this.id, seq: this.sampled, at, ...reading })))
    }
  }

  #store(payload: Buffer): void {
    const sequence = this.sampled
    if (this.#flash !== null) {
      this.#flash.append({ sequence, payload, wasSent: false })
      return
    }
    const state = this.#state
    if (state.kind !== 'online' || state.connection.isCongested) {
      this.discarded++
      return
    }
    this.#lastSentAt = this.#clock.realNow()
    this.ledger.noteSent(sequence)
    state.connection.publish({ topic: this.#topic, payload, qos: 0, dup: false, packetId: 0 })
  }

  /** Sends what is in flash, in order, as far as the window allows. */
  #send(): void {
    const flash = this.#flash
    const state = this.#state
    if (flash === null || state.kind !== 'online') return
    const now = this.#clock.realNow()
    this.#sendPosition = Math.max(this.#sendPosition, flash.first)
    while (this.#inFlight.size < this.#firmware.window && this.#sendPosition < flash.end) {
      if (state.connection.isCongested) return
      const position = this.#sendPosition++
      const reading = flash.at(position)
      if (reading === undefined) continue
      const packetId = this.#freePacketId()
      this.#inFlight.set(packetId, { sequence: reading.sequence, position, sentAt: now })
      this.ledger.noteSent(reading.sequence)
      this.#lastSentAt = now
      state.connection.publish({ topic: this.#topic, payload: reading.payload, qos: 1, dup: reading.wasSent, packetId })
      reading.wasSent = true
    }
  }

  #freePacketId(): number {
    do this.#lastPacketId = (this.#lastPacketId % HIGHEST_PACKET_ID) + 1
    while (this.#inFlight.has(this.#lastPacketId))
    return this.#lastPacketId
  }

  // ---- The connection

  /** Connects when the pause is over, pings, and gives up a connection that no longer answers. */
  #minds(): void {
    const now = this.#clock.realNow()
    const state = this.#state
    if (state.kind === 'waiting' && state.until <= now) {
      this.#connect()
    } else if (state.kind === 'connecting' && state.since + this.#firmware.answerTimeoutMs <= now) {
      this.#giveUp(state.connection)
    } else if (state.kind === 'online') {
      if (this.#answerDueAt() <= now) {
        this.#giveUp(state.connection)
      } else if (this.#pingDueAt() <= now) {
        this.#pingedAt = now
        this.#lastSentAt = now
        state.connection.ping()
      }
    }
  }

  /** When the oldest thing that asks for an answer has waited too long. */
  #answerDueAt(): number {
    const [oldest] = this.#inFlight.values()
    const askedAt = Math.min(oldest?.sentAt ?? Number.POSITIVE_INFINITY, this.#pingedAt ?? Number.POSITIVE_INFINITY)
    // As long as answers come in at all the broker works, if slowly.
    return Math.max(askedAt, this.#lastHeardAt) + this.#firmware.answerTimeoutMs
  }

  #pingDueAt(): number {
    if (this.#pingedAt !== null) return Number.POSITIVE_INFINITY
    // Also if it only talks and hears nothing: at QoS 0 that is how it finds out that it talks to nobody.
    return Math.min(this.#lastSentAt, this.#lastHeardAt) + this.#firmware.keepAliveS * 1000 * PING_AT
  }

  #connect(): void {
    // Events of a connection that is no longer ours are not told: the radio drops them.
    const events: MqttEvents = {
      onConnected: () => this.#connected(),
      onAcknowledged: packetId => this.#acknowledged(packetId),
      onHeard: () => {
        this.#lastHeardAt = this.#clock.realNow()
        this.#pingedAt = null
      },
      onClosed: () => this.#closed(),
    }
    const { keepAliveS } = this.#firmware
    const connection = new MqttConnection({ radio: this.#radio, clientId: this.id, keepAliveS, events })
    this.#state = { kind: 'connecting', since: this.#clock.realNow(), connection }
  }

  #connected(): void {
    if (this.#state.kind !== 'connecting') return
    this.#state = { kind: 'online', connection: this.#state.connection }
    if (this.#connections++ > 0) this.reconnects++
    this.#failures = 0
    this.#lastSentAt = this.#clock.realNow()
    this.#send()
    this.#sleep()
  }

  #acknowledged(packetId: number): void {
    const sent = this.#inFlight.get(packetId)
    if (sent === undefined) return
    this.#inFlight.delete(packetId)
    this.ledger.noteAcknowledged(sent.sequence)
    this.#flash?.release(sent.position)
    this.#send()
  }

  #giveUp(connection: MqttConnection): void {
    connection.abandon()
    this.#closed()
  }

  /** All that was in flight is sent again, in order and with DUP, once there is a new connection. */
  #closed(): void {
    if (this.#state.kind === 'off') {
      this.#onOff?.()
      return
    }
    this.#inFlight.clear()
    this.#sendPosition = this.#flash?.first ?? 0
    this.#pingedAt = null
    const { firstMs, maxMs } = this.#firmware.reconnect
    const pauseMs = Math.min(maxMs, firstMs * 2 ** Math.min(this.#failures++, 16)) * this.#random.between(0.5, 1)
    this.#state = { kind: 'waiting', until: this.#clock.realNow() + pauseMs }
    this.#sleep()
  }
}

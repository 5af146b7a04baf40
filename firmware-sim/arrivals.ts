import type { LedgerSnapshot } from './ledger.ts'
import { type NumberRange, NumberSet, toRanges } from './number-set.ts'

/*
 * What arrived upstream, compared with what the gateways promise (design.md section 2, contract.md section 5):
 *
 * - a message_id <gateway>/<epoch>/<seq> belongs to one acceptance; the same id twice is a harmless repetition by the gateway;
 * - a reading that arrives under two ids was sent twice by its device: all but one of them say so (x-mqtt-dup);
 * - after dropping repeated ids, messages of one device and topic arrive in order of acceptance, live ones and replayed ones
 *   (x-sluice-replay) each for themselves; a retried message (x-sluice-attempts) has lost its place.
 *
 * Ids are compared only within their epoch, because an epoch is a random name; but an epoch that has been followed by another one
 * may not come back.
 */

/** One message as it was taken from the upstream queue, headers as far as they matter. */
export interface Arrival {
  readonly messageId: unknown
  /** Of x-mqtt-topic. */
  readonly topic: unknown
  /** Of x-mqtt-client-id. */
  readonly clientId: unknown
  readonly isDup: boolean
  readonly isReplay: boolean
  readonly isRetried: boolean
  readonly payload: Buffer
}

export type MessageClass = 'live' | 'replay'

export interface OrderViolation {
  readonly device: string
  readonly topic: string
  readonly class: MessageClass
  readonly previousId: string
  readonly id: string
  readonly previousSequence: number
  readonly sequence: number
  readonly reason: 'id went back' | 'epoch came back' | 'sequence went back'
}

export interface DeviceReport {
  readonly device: string
  readonly topic: string
  /** Distinct readings that arrived. */
  readonly received: number
  /** Acknowledged to the device and not upstream. */
  readonly lost: readonly NumberRange[]
  /** Sent without an acknowledgement and not upstream: allowed. */
  readonly absent: readonly NumberRange[]
  /** Upstream but not in the ledger, so never sent by this device. */
  readonly unknown: readonly NumberRange[]
}

export interface GatewayReport {
  readonly gateway: string
  /** Process starts that accepted something. */
  readonly epochs: number
  /** Distinct message ids. */
  readonly received: number
}

export interface Report {
  readonly devices: readonly DeviceReport[]
  readonly gateways: readonly GatewayReport[]
  /** Deliveries, repetitions included. */
  readonly deliveries: number
  /** Distinct readings of all devices. */
  readonly received: number
  readonly acknowledged: number
  /** Number of acknowledged readings that did not arrive. Must be 0. */
  readonly lost: number
  /** Readings sent without acknowledgement that did not arrive; allowed. */
  readonly absent: number
  /** Readings that no ledger knows. Must be 0. */
  readonly unknown: number
  /** Deliveries under an id seen before: resent by the gateway, or redelivered. Harmless. */
  readonly repeatedIds: number
  /** Readings that arrived under a second id, marked as the device's own resend. Harmless. */
  readonly resentByDevice: number
  /** Readings that arrived under a second id without the mark. Must be 0. */
  readonly unmarkedDuplicates: Noted<{ readonly device: string; readonly sequence: number; readonly id: string }>
  readonly live: number
  readonly replayed: number
  readonly retried: number
  readonly orderViolations: { readonly live: Noted<OrderViolation>; readonly replay: Noted<OrderViolation> }
  /** Messages that are not what a gateway sends. Must be 0. */
  readonly malformed: Noted<string>
  /** True if everything that must be 0 is 0. */
  readonly isFaultless: boolean
}

/** How many there were, and the first of them. */
export interface Noted<T> {
  readonly count: number
  readonly first: readonly T[]
}

const NOTED_LIMIT = 100

class Notebook<T> implements Noted<T> {
  count = 0
  readonly first: T[] = []

  note(entry: T): void {
    this.count++
    if (this.first.length < NOTED_LIMIT) this.first.push(entry)
  }

  /** A copy, for a report. */
  copy(): Noted<T> {
    return { count: this.count, first: [...this.first] }
  }
}

interface MessageId {
  readonly text: string
  readonly gateway: string
  readonly epoch: string
  readonly sequence: number
}

/** How far the messages of one device, topic and class have come. */
interface Progress {
  id: MessageId
  sequence: number
  /** Epochs that have been followed by another. */
  readonly pastEpochs: Set<string>
  /** Highest sequence number that was not a resend. */
  highestFirst: { readonly id: MessageId; readonly sequence: number } | null
}

interface TopicArrivals {
  readonly device: string
  readonly topic: string
  readonly received: NumberSet
  /** Those that arrived without the mark of a resend. */
  readonly unmarked: NumberSet
  readonly progress: Map<MessageClass, Progress>
}

/** Keeps account of arrivals; pure, and small: bits, not ids. */
export class Arrivals {
  #deliveries = 0
  #repeatedIds = 0
  #resentByDevice = 0
  #live = 0
  #replayed = 0
  #retried = 0
  readonly #unmarkedDuplicates = new Notebook<{ device: string; sequence: number; id: string }>()
  readonly #violations = { live: new Notebook<OrderViolation>(), replay: new Notebook<OrderViolation>() }
  readonly #malformed = new Notebook<string>()
  /** By device and topic. */
  readonly #topics = new Map<string, TopicArrivals>()
  /** Id numbers seen, by gateway and epoch. */
  readonly #gateways = new Map<string, Map<string, NumberSet>>()

  /** Deliveries so far, repetitions included. */
  get deliveries(): number {
    return this.#deliveries
  }

  /** Distinct readings so far. */
  get received(): number {
    let received = 0
    for (const topic of this.#topics.values()) received += topic.received.size
    return received
  }

  /** Deliveries so far under an id that had been seen before. */
  get repeatedIds(): number {
    return this.#repeatedIds
  }

  note(arrival: Arrival): void {
    this.#deliveries++
    const id = readMessageId(arrival.messageId)
    const reading = readReading(arrival.payload)
    const { topic, clientId } = arrival
    if (id === null || reading === null || typeof topic !== 'string' || clientId !== reading.device) {
      this.#malformed.note(describe(arrival))
      return
    }
    if (!this.#idsOf(id).add(id.sequence)) {
      this.#repeatedIds++
      return
    }
    const arrivals = this.#arrivalsOf(reading.device, topic)
    const isFirst = arrivals.received.add(reading.sequence)
    if (!isFirst) this.#resentByDevice++
    if (!arrival.isDup && !arrivals.unmarked.add(reading.sequence)) {
      this.#unmarkedDuplicates.note({ device: reading.device, sequence: reading.sequence, id: id.text })
    }
    if (arrival.isReplay) this.#replayed++
    else this.#live++
    if (arrival.isRetried) this.#retried++
    else this.#checkOrder(arrivals, id, reading.sequence, arrival)
  }

  /** Number of acknowledged readings that have not arrived yet. */
  missing(ledgers: Iterable<LedgerSnapshot>): number {
    let missing = 0
    for (const ledger of ledgers) {
      const received = this.#topics.get(keyOf(ledger.device, ledger.topic))?.received
      for (const sequence of numbersOf(ledger.acknowledged)) if (!received?.has(sequence)) missing++
    }
    return missing
  }

  /** The account, held against what the devices know. */
  report(ledgers: readonly LedgerSnapshot[]): Report {
    const devices = ledgers.map(ledger => this.#deviceReport(ledger))
    const known = new Set(ledgers.map(ledger => keyOf(ledger.device, ledger.topic)))
    for (const [key, { device, topic, received }] of this.#topics) {
      if (known.has(key)) continue
      devices.push({ device, topic, received: received.size, lost: [], absent: [], unknown: received.ranges() })
    }
    const gateways = [...this.#gateways].map(([gateway, epochs]) => ({
      gateway,
      epochs: epochs.size,
      received: [...epochs.values()].reduce((sum, ids) => sum + ids.size, 0),
    }))
    const lost = devices.reduce((sum, device) => sum + countOf(device.lost), 0)
    const unknown = devices.reduce((sum, device) => sum + countOf(device.unknown), 0)
    const { live, replay } = this.#violations
    const mustBeZero = [lost, unknown, this.#unmarkedDuplicates.count, live.count, replay.count, this.#malformed.count]
    return {
      devices,
      gateways,
      deliveries: this.#deliveries,
      received: this.received,
      acknowledged: ledgers.reduce((sum, ledger) => sum + countOf(ledger.acknowledged), 0),
      lost,
      absent: devices.reduce((sum, device) => sum + countOf(device.absent), 0),
      unknown,
      repeatedIds: this.#repeatedIds,
      resentByDevice: this.#resentByDevice,
      unmarkedDuplicates: this.#unmarkedDuplicates.copy(),
      live: this.#live,
      replayed: this.#replayed,
      retried: this.#retried,
      orderViolations: { live: live.copy(), replay: replay.copy() },
      malformed: this.#malformed.copy(),
      isFaultless: mustBeZero.every(count => count === 0),
    }
  }

  #deviceReport({ device, topic, acknowledged, unacknowledged }: LedgerSnapshot): DeviceReport {
    const received = this.#topics.get(keyOf(device, topic))?.received ?? new NumberSet()
    const sent = NumberSet.of([...acknowledged, ...unacknowledged])
    return {
      device,
      topic,
      received: received.size,
      lost: toRanges(without(numbersOf(acknowledged), received)),
      absent: toRanges(without(numbersOf(unacknowledged), received)),
      unknown: toRanges(without(received.values(), sent)),
    }
  }

  #checkOrder(arrivals: TopicArrivals, id: MessageId, sequence: number, { isReplay, isDup }: Arrival): void {
    const messageClass = isReplay ? 'replay' : 'live'
    const progress = arrivals.progress.get(messageClass)
    if (progress === undefined) {
      const highestFirst = isDup ? null : { id, sequence }
      arrivals.progress.set(messageClass, { id, sequence, pastEpochs: new Set(), highestFirst })
      return
    }
    const violated = (reason: OrderViolation['reason'], previous: { id: MessageId; sequence: number }) => {
      this.#violations[messageClass].note({
        device: arrivals.device,
        topic: arrivals.topic,
        class: messageClass,
        previousId: previous.id.text,
        id: id.text,
        previousSequence: previous.sequence,
        sequence,
        reason,
      })
    }
    const epoch = epochOf(id)
    if (epoch === epochOf(progress.id)) {
      if (id.sequence < progress.id.sequence) violated('id went back', progress)
    } else {
      if (progress.pastEpochs.has(epoch)) violated('epoch came back', progress)
      progress.pastEpochs.add(epochOf(progress.id))
    }
    progress.id = id
    progress.sequence = sequence
    // A resend is accepted later than what followed its original; the others come as the device took them.
    if (isDup) return
    const highest = progress.highestFirst
    if (highest !== null && sequence < highest.sequence) violated('sequence went back', highest)
    else progress.highestFirst = { id, sequence }
  }

  #idsOf({ gateway, epoch }: MessageId): NumberSet {
    let epochs = this.#gateways.get(gateway)
    if (epochs === undefined) {
      epochs = new Map()
      this.#gateways.set(gateway, epochs)
    }
    let ids = epochs.get(epoch)
    if (ids === undefined) {
      ids = new NumberSet()
      epochs.set(epoch, ids)
    }
    return ids
  }

  #arrivalsOf(device: string, topic: string): TopicArrivals {
    const key = keyOf(device, topic)
    let arrivals = this.#topics.get(key)
    if (arrivals === undefined) {
      arrivals = { device, topic, received: new NumberSet(), unmarked: new NumberSet(), progress: new Map() }
      this.#topics.set(key, arrivals)
    }
    return arrivals
  }
}

/** U+0000 can be in neither an MQTT topic nor a client id. */
function keyOf(device: string, topic: string): string {
  return `${device}\0${topic}`
}

function epochOf({ gateway, epoch }: MessageId): string {
  return `${gateway}/${epoch}`
}

/** `<gateway>/<epoch>/<seq>`; the gateway's name may itself contain a slash. */
function readMessageId(value: unknown): MessageId | null {
  if (typeof value !== 'string') return null
  const match = /^(.+)\/([a-z2-7]{10})\/(\d{1,15})$/i.exec(value)
  const [text, gateway, epoch, digits] = match ?? []
  if (text === undefined || gateway === undefined || epoch === undefined || digits === undefined) return null
  return { text, gateway, epoch, sequence: Number(digits) }
}

function readReading(payload: Buffer): { device: string; sequence: number } | null {
  let value: unknown
  try {
    value = JSON.parse(payload.toString('utf8'))
  } catch {
    return null
  }
  if (typeof value !== 'object' || value === null || !('device' in value) || !('seq' in value)) return null
  const { device, seq } = value
  if (typeof device !== 'string' || typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 1) return null
  return { device, sequence: seq }
}

function* numbersOf(ranges: readonly NumberRange[]): Generator<number> {
  for (const [first, last] of ranges) for (let value = first; value <= last; value++) yield value
}

function* without(values: Iterable<number>, set: NumberSet): Generator<number> {
  for (const value of values) if (!set.has(value)) yield value
}

function describe({ messageId, topic, clientId, payload }: Arrival): string {
  const start = payload.toString('utf8', 0, 200)
  return JSON.stringify({ message_id: messageId, 'x-mqtt-topic': topic, 'x-mqtt-client-id': clientId, payload: start })
}

function countOf(ranges: readonly NumberRange[]): number {
  return ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0)
}

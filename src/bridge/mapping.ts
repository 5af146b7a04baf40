/*
 * From a record to an AMQP message: the table of contract.md section 5, one way. What a name means upstream is in docs/protocols.md.
 *
 * This runs once per forwarded message and is a third of its cost, so what depends on the names alone (topic, client, user) is worked out once
 * and kept, and the result object is used again for each message.
 */
import { isUtf8 } from 'node:buffer'
import type { RouteConfig } from '../config/schema.ts'
import { NOTE_LIVE } from '../core/consumer.ts'
import type { Identities } from '../core/identity.ts'
import { historyOf, originalTopic } from '../model/death-history.ts'
import {
  CLOCK_WORDS,
  PropertiesTag,
  recordClientId,
  recordDup,
  recordExpiryMs,
  recordIsTopic,
  recordKeyAt,
  recordNamesEnd,
  recordPropertiesAt,
  recordPropertiesBytes,
  recordPropertiesTag,
  recordQos,
  recordRetain,
  recordUser,
} from '../model/message.ts'
import { readMqtt5Properties } from '../model/mqtt5-properties.ts'
import { compileRoutingKey, type RoutingKeyOf } from './routing-key.ts'
import { addHistory, type XDeath, xDeathBytes } from './x-death.ts'

export type HeaderValue = string | number | boolean | Buffer | string[] | XDeath[]
/** Always without a prototype: devices choose names. */
export type Headers = Record<string, HeaderValue>

/** The arguments of one basic.publish beside the body. */
export interface Publication {
  exchange: string
  routingKey: string
  messageId: string
  appId: string
  /** Seconds since 1970. */
  timestamp: number
  deliveryMode: 1 | 2
  contentType: string | undefined
  correlationId: string | undefined
  /** Milliseconds, in decimal. */
  expiration: string | undefined
  headers: Headers
}

/**
 * All headers of one message at most, bytes as encoded. AMQP can't split the frame they travel in (131,072 bytes with RabbitMQ), and the client library encodes
 * them in a buffer of 65,536. Headers beyond are left out, ours last, and counted in `x-sluice-omitted`.
 */
export const HEADERS_BYTES = 60 * 1024

const SHORT_STRING_BYTES = 255

/** Names are kept up to so many, and only short ones: about 3 MiB per route at worst. */
const NAMES_KEPT = 1024
const NAMES_BYTES_KEPT = 512

/** What RabbitMQ or we ourselves give a meaning: a device must not set it. `CC` and `BCC` are further routing keys to RabbitMQ. */
const RESERVED_NAME = /^(?:x-(?:sluice-|death$|(?:first|last)-death-|mqtt-|correlation-id$|reply-to-topic$)|B?CC$)/

interface Names {
  readonly routingKey: string
  readonly lateKey: string
  /** Length of the three names, bytes. */
  readonly bytes: number
  /**
   * Headers of a message that has no properties of its own, class live and class backlog. The client library is twice as fast with an object it has seen
   * before, so these two are kept and their changing values overwritten; it encodes them before publish returns.
   */
  readonly live: Headers
  readonly backlog: Headers
}

/** What a route says about where its messages go. */
type MappedRoute = Pick<RouteConfig, 'routingKey' | 'codec' | 'late'> & {
  readonly exchange: Pick<RouteConfig['exchange'], 'name'>
}

/** Maps the messages of one route. */
export class Mapping {
  readonly #identities: Identities
  readonly #routingKeyOf: RoutingKeyOf
  /** Of the backlog. */
  readonly #lateKeyOf: RoutingKeyOf
  readonly #exchange: string
  readonly #lateExchange: string
  readonly #names = new Map<string, Names>()
  readonly #publication: Publication

  constructor({ route, identities }: { route: MappedRoute; identities: Identities }) {
    const { routingKey, codec, exchange, late } = route
    const { gateway } = identities
    this.#identities = identities
    this.#routingKeyOf = compileRoutingKey({ template: routingKey, codec, gateway })
    this.#lateKeyOf = compileRoutingKey({ template: routingKey + late.keySuffix, codec, gateway })
    this.#exchange = exchange.name
    this.#lateExchange = late.exchange ?? exchange.name
    this.#publication = {
      exchange: '',
      routingKey: '',
      messageId: '',
      appId: identities.gateway,
      timestamp: 0,
      deliveryMode: 1,
      contentType: undefined,
      correlationId: undefined,
      expiration: undefined,
      headers: emptyHeaders(),
    }
  }

  /** The publication of the record at `at`; the object is valid until the next call. `failures`: how often it was refused upstream before. `headersBytes`: what the link can carry, if less than HEADERS_BYTES. */
  publicationOf(bytes: Buffer, at: number, note: number, failures: number, headersBytes = HEADERS_BYTES): Publication {
    const propertiesAt = recordPropertiesAt(bytes, at)
    const propertiesBytes = recordPropertiesBytes(bytes, at)
    const names = this.#namesOf(bytes, at, recordNamesEnd(bytes, at))
    const qos = recordQos(bytes, at)
    const wallMs = Math.max(0, this.#identities.wallTimeMs(bytes, at))
    const ageMs = this.#identities.ageMs(bytes, at)
    const expiryMs = recordExpiryMs(bytes, at)

    const publication = this.#publication
    publication.messageId = this.#identities.messageId(bytes, at)
    publication.timestamp = Math.floor(wallMs / 1000)
    publication.deliveryMode = qos === 0 ? 1 : 2
    publication.contentType = undefined
    publication.correlationId = undefined
    publication.expiration = expiryMs === 0 ? undefined : String(Math.max(0, Math.ceil(expiryMs - ageMs)))

    const isBacklog = (note & NOTE_LIVE) === 0
    publication.exchange = isBacklog ? this.#lateExchange : this.#exchange
    publication.routingKey = isBacklog ? names.lateKey : names.routingKey
    let headers = isBacklog ? names.backlog : names.live
    headers['x-mqtt-qos'] = qos
    headers['x-sluice-ts-ms'] = wallMs
    headers['x-sluice-clock'] = CLOCK_WORDS[this.#identities.trustOf(bytes, at)]
    if (isBacklog) headers['x-sluice-buffered-ms'] = Math.round(ageMs)
    const hasProperties = propertiesBytes > 0 && recordPropertiesTag(bytes, at) === PropertiesTag.mqtt5
    const history = historyOf(bytes, at)
    if (hasProperties || history !== null || failures > 0 || recordRetain(bytes, at) || recordDup(bytes, at)) {
      headers = Object.assign(emptyHeaders(), headers)
      if (recordRetain(bytes, at)) headers['x-mqtt-retain'] = true
      if (recordDup(bytes, at)) headers['x-mqtt-dup'] = true
      if (failures > 0) headers['x-sluice-attempts'] = failures
      if (history !== null) addHistory(headers, history, this.#identities)
    }
    publication.headers = headers
    if (hasProperties) this.#addProperties(bytes, propertiesAt, propertiesAt + propertiesBytes)
    // A property takes six bytes more than its name and value there, five here: below this nothing needs counting.
    if (history !== null || names.bytes + propertiesBytes * 2 + 512 > headersBytes)
      publication.headers = fitted(publication.headers, headersBytes)
    return publication
  }

  #addProperties(bytes: Buffer, from: number, to: number): void {
    const publication = this.#publication
    const properties = readMqtt5Properties(bytes, from, to)
    if (properties === null) {
      publication.headers['x-sluice-omitted'] = 1
      return
    }
    const { payloadFormat, contentType, responseTopic, correlationData, userProperties } = properties
    if (contentType !== null) {
      if (/^[\x20-\x7e]{0,255}$/.test(contentType)) publication.contentType = contentType
      else publication.headers['x-mqtt-content-type'] = contentType
    }
    if (correlationData !== null) {
      if (correlationData.length <= SHORT_STRING_BYTES && isUtf8(correlationData)) {
        publication.correlationId = correlationData.toString('utf8')
      } else {
        publication.headers['x-correlation-id'] = correlationData
      }
    }
    if (responseTopic !== null) publication.headers['x-reply-to-topic'] = responseTopic
    if (payloadFormat !== null) publication.headers['x-mqtt-pfi'] = payloadFormat
    addUserProperties(publication.headers, userProperties)
  }

  #namesOf(bytes: Buffer, at: number, namesEnd: number): Names {
    const start = recordKeyAt(bytes, at)
    // Of another exchange the same bytes are another topic.
    if (namesEnd - start > NAMES_BYTES_KEPT || !recordIsTopic(bytes, at))
      return this.#readNames(bytes, at, namesEnd - start)
    // Six bytes of lengths in front, so that no two triples of names have the same text.
    const key = bytes.toString('latin1', at + 27, at + 33) + bytes.toString('latin1', start, namesEnd)
    let names = this.#names.get(key)
    if (names === undefined) {
      names = this.#readNames(bytes, at, namesEnd - start)
      if (this.#names.size >= NAMES_KEPT) this.#names.clear()
      this.#names.set(key, names)
    }
    return names
  }

  #readNames(bytes: Buffer, at: number, length: number): Names {
    const topic = originalTopic(bytes, at)
    const clientId = recordClientId(bytes, at)
    const user = recordUser(bytes, at)
    const live = emptyHeaders()
    live['x-mqtt-topic'] = topic
    live['x-mqtt-qos'] = 0
    live['x-mqtt-client-id'] = clientId
    if (user !== '') live['x-mqtt-user'] = user
    live['x-sluice-ts-ms'] = 0
    live['x-sluice-clock'] = ''
    const backlog = Object.assign(emptyHeaders(), live)
    backlog['x-sluice-replay'] = true
    backlog['x-sluice-buffered-ms'] = 0
    const routingKey = this.#routingKeyOf(topic, clientId, user)
    const lateKey = this.#lateKeyOf(topic, clientId, user)
    return { routingKey, lateKey, bytes: length, live, backlog }
  }
}

const emptyHeaders = (): Headers => Object.create(null)

/** Adds user properties behind our own headers; repeated names become arrays. */
function addUserProperties(headers: Headers, properties: readonly (readonly [string, string])[]): void {
  let omitted = 0
  for (const [name, value] of properties) {
    if (RESERVED_NAME.test(name) || Buffer.byteLength(name) > SHORT_STRING_BYTES) {
      omitted++
      continue
    }
    const earlier = headers[name]
    if (isTexts(earlier)) earlier.push(value)
    else headers[name] = typeof earlier === 'string' ? [earlier, value] : value
  }
  if (omitted > 0) headers['x-sluice-omitted'] = omitted
}

const isTexts = (value: HeaderValue | undefined): value is string[] =>
  Array.isArray(value) && value.every(item => typeof item === 'string')

/** Leaves out headers that don't fit behind the earlier ones; how many is told in x-sluice-omitted. */
function fitted(headers: Headers, headersBytes: number): Headers {
  const kept = emptyHeaders()
  let omitted = Number(headers['x-sluice-omitted'] ?? 0)
  let used = 64
  for (const [name, value] of Object.entries(headers)) {
    const length = 1 + Buffer.byteLength(name) + encodedBytes(value)
    if (used + length > headersBytes) {
      omitted += Array.isArray(value) ? value.length : 1
    } else {
      used += length
      kept[name] = value
    }
  }
  if (omitted > 0) kept['x-sluice-omitted'] = omitted
  return kept
}

/** An upper bound of what a value takes in a field table. */
function encodedBytes(value: HeaderValue): number {
  if (typeof value === 'string') return 5 + Buffer.byteLength(value)
  if (Buffer.isBuffer(value)) return 5 + value.length
  if (Array.isArray(value)) {
    return value
      .map(item => (typeof item === 'string' ? 5 + Buffer.byteLength(item) : xDeathBytes(item)))
      .reduce((sum, itemBytes) => sum + itemBytes, 5)
  }
  return 9
}

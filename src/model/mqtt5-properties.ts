/*
 * Reads the property bytes of an MQTT 5 PUBLISH (2.2.2, 3.3.2.3), as they stand in a record: without the length in front. For everybody who
 * turns them into something else; who forwards MQTT to MQTT copies the bytes.
 */
import { isUtf8 } from 'node:buffer'

/** Properties of a PUBLISH that have a meaning beyond one connection. Names and values of user properties in their order, repeated names included. */
export interface Mqtt5Properties {
  readonly payloadFormat: number | null
  /** Where in these bytes the message expiry stands, five of them with its identifier; what it says is in the record. */
  readonly messageExpiryAt: number | null
  readonly contentType: string | null
  readonly responseTopic: string | null
  /** A slice of the bytes read. */
  readonly correlationData: Buffer | null
  readonly userProperties: readonly (readonly [name: string, value: string])[]
}

const PAYLOAD_FORMAT = 0x01
const MESSAGE_EXPIRY = 0x02
const CONTENT_TYPE = 0x03
const RESPONSE_TOPIC = 0x08
const CORRELATION_DATA = 0x09
const SUBSCRIPTION_IDENTIFIER = 0x0b
const TOPIC_ALIAS = 0x23
const USER_PROPERTY = 0x26

/** The properties without a message expiry; as they are if they cannot be read. */
export function withoutMessageExpiry(properties: Buffer): Buffer {
  const at = readMqtt5Properties(properties, 0, properties.length)?.messageExpiryAt ?? null
  return at === null ? properties : Buffer.concat([properties.subarray(0, at), properties.subarray(at + 5)])
}

/** Null if the bytes from `from` to `to` are not the properties of a PUBLISH. */
export function readMqtt5Properties(bytes: Buffer, from: number, to: number): Mqtt5Properties | null {
  let payloadFormat: number | null = null
  let messageExpiryAt: number | null = null
  let contentType: string | null = null
  let responseTopic: string | null = null
  let correlationData: Buffer | null = null
  const userProperties: [string, string][] = []
  let at = from

  /** Length-prefixed bytes at `at`; null if they reach beyond `to`. */
  const field = (): Buffer | null => {
    if (at + 2 > to) return null
    const start = at + 2
    const end = start + bytes.readUInt16BE(at)
    if (end > to) return null
    at = end
    return bytes.subarray(start, end)
  }
  const text = (): string | null => {
    const found = field()
    return found === null || !isUtf8(found) ? null : found.toString('utf8')
  }

  while (at < to) {
    switch (bytes[at++]) {
      case PAYLOAD_FORMAT:
        if (at + 1 > to) return null
        payloadFormat = bytes.readUInt8(at)
        at += 1
        break
      case MESSAGE_EXPIRY:
        if (at + 4 > to) return null
        messageExpiryAt = at - 1 - from
        at += 4
        break
      case TOPIC_ALIAS:
        if (at + 2 > to) return null
        at += 2
        break
      case SUBSCRIPTION_IDENTIFIER: {
        // A variable byte integer: at most four bytes, the last one below 0x80.
        let length = 1
        while (length <= 4 && at + length <= to && (bytes[at + length - 1] ?? 0) >= 0x80) length++
        if (length > 4 || at + length > to) return null
        at += length
        break
      }
      case CONTENT_TYPE:
        contentType = text()
        if (contentType === null) return null
        break
      case RESPONSE_TOPIC:
        responseTopic = text()
        if (responseTopic === null) return null
        break
      case CORRELATION_DATA:
        correlationData = field()
        if (correlationData === null) return null
        break
      case USER_PROPERTY: {
        const name = text()
        const value = name === null ? null : text()
        if (name === null || value === null) return null
        userProperties.push([name, value])
        break
      }
      default:
        return null
    }
  }
  return { payloadFormat, messageExpiryAt, contentType, responseTopic, correlationData, userProperties }
}

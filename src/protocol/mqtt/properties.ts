import { PacketType } from './frame.ts'
import { malformed, ProtocolError, Reason } from './protocol-error.ts'
import { decodeText, isText } from './text.ts'

/** Property identifiers a client may send (5.0 section 2.2.2.2). */
export const Property = {
  payloadFormatIndicator: 0x01,
  messageExpiryInterval: 0x02,
  contentType: 0x03,
  responseTopic: 0x08,
  correlationData: 0x09,
  subscriptionIdentifier: 0x0b,
  sessionExpiryInterval: 0x11,
  authenticationMethod: 0x15,
  authenticationData: 0x16,
  requestProblemInformation: 0x17,
  willDelayInterval: 0x18,
  requestResponseInformation: 0x19,
  reasonString: 0x1f,
  receiveMaximum: 0x21,
  topicAliasMaximum: 0x22,
  topicAlias: 0x23,
  userProperty: 0x26,
  maximumPacketSize: 0x27,
} as const
export type Property = (typeof Property)[keyof typeof Property]

/** Stands for the properties of a will, which have a table of their own. */
export const WILL_PROPERTIES = 0

type ValueType = 'boolean' | 'u16' | 'u32' | 'varint' | 'text' | 'binary' | 'pair'

interface PropertyRule {
  readonly type: ValueType
  /** Bit n: may come from a client in a packet of type n. */
  readonly packets: number
}

const { connect, publish, puback, pubrec, pubrel, pubcomp, subscribe, unsubscribe, disconnect, auth } = PacketType
const packets = (...types: number[]): number => types.reduce((bits, type) => bits | (1 << type), 0)
const MESSAGE = packets(publish, WILL_PROPERTIES)

/** By identifier; what is missing here a client may never send. */
const RULES: (PropertyRule | undefined)[] = []
RULES[Property.payloadFormatIndicator] = { type: 'boolean', packets: MESSAGE }
RULES[Property.messageExpiryInterval] = { type: 'u32', packets: MESSAGE }
RULES[Property.contentType] = { type: 'text', packets: MESSAGE } // [MQTT-3.3.2-19]
RULES[Property.responseTopic] = { type: 'text', packets: MESSAGE } // [MQTT-3.3.2-13]
RULES[Property.correlationData] = { type: 'binary', packets: MESSAGE }
// In a PUBLISH only a server sends it; it is read all the same so that the answer is the right one.
RULES[Property.subscriptionIdentifier] = { type: 'varint', packets: packets(subscribe, publish) }
RULES[Property.sessionExpiryInterval] = { type: 'u32', packets: packets(connect, disconnect) }
RULES[Property.authenticationMethod] = { type: 'text', packets: packets(connect, auth) }
RULES[Property.authenticationData] = { type: 'binary', packets: packets(connect, auth) }
RULES[Property.requestProblemInformation] = { type: 'boolean', packets: packets(connect) }
RULES[Property.willDelayInterval] = { type: 'u32', packets: packets(WILL_PROPERTIES) }
RULES[Property.requestResponseInformation] = { type: 'boolean', packets: packets(connect) }
RULES[Property.reasonString] = { type: 'text', packets: packets(puback, pubrec, pubrel, pubcomp, disconnect, auth) }
RULES[Property.receiveMaximum] = { type: 'u16', packets: packets(connect) }
RULES[Property.topicAliasMaximum] = { type: 'u16', packets: packets(connect) }
RULES[Property.topicAlias] = { type: 'u16', packets: packets(publish) }
RULES[Property.userProperty] = {
  type: 'pair',
  packets: packets(
    connect,
    publish,
    WILL_PROPERTIES,
    puback,
    pubrec,
    pubrel,
    pubcomp,
    subscribe,
    unsubscribe,
    disconnect,
    auth,
  ),
}
RULES[Property.maximumPacketSize] = { type: 'u32', packets: packets(connect) }

const IDENTIFIERS = 0x2b

/**
 * One scan of a packet's property bytes: identifiers allowed in that packet, each at most once but user properties, values of their
 * type, nothing left over. Holds where each value lies; the bytes stay as they are. Meant to be used again for the next packet.
 */
export class PropertyScan {
  #bytes: Buffer = Buffer.alloc(0)
  /** Bits of identifiers seen: 0-31 and 32-42. */
  #seenLow = 0
  #seenHigh = 0
  readonly #starts = new Uint32Array(IDENTIFIERS)
  readonly #values = new Uint32Array(IDENTIFIERS)
  readonly #ends = new Uint32Array(IDENTIFIERS)

  /** Throws ProtocolError with the reason the standard gives. `packet` is the packet's type, or WILL_PROPERTIES. */
  scan(bytes: Buffer, from: number, to: number, packet: number): void {
    this.#bytes = bytes
    this.#seenLow = 0
    this.#seenHigh = 0
    let at = from
    while (at < to) {
      const start = at
      // All identifiers are below 128, so this variable byte integer has one byte.
      const id = bytes[at++] ?? 0
      const rule = RULES[id]
      if (rule === undefined || (rule.packets & (1 << packet)) === 0) {
        throw malformed(`property 0x${id.toString(16)} has no place in this packet`)
      }
      let value = at
      switch (rule.type) {
        case 'boolean':
          at += 1
          if (at <= to && (bytes[value] ?? 0) > 1) throw protocolError(id, 'is neither 0 nor 1')
          break
        case 'u16':
          at += 2
          break
        case 'u32':
          at += 4
          break
        case 'varint':
          at = varintEnd(bytes, at, to)
          break
        case 'text':
          value += 2
          at = sizedEnd(bytes, at, to)
          // [MQTT-3.3.2-13], [MQTT-3.3.2-19]
          if (!isText(bytes, value, at)) throw malformed(`property 0x${id.toString(16)} is not valid UTF-8`)
          break
        case 'binary':
          value += 2
          at = sizedEnd(bytes, at, to)
          break
        case 'pair': {
          const nameEnd = sizedEnd(bytes, at, to)
          const end = sizedEnd(bytes, nameEnd, to)
          if (!isText(bytes, at + 2, nameEnd) || !isText(bytes, nameEnd + 2, end)) {
            throw malformed('a user property is not valid UTF-8') // [MQTT-1.5.7-1]
          }
          at = end
          break
        }
        default:
          rule.type satisfies never
      }
      if (at > to) throw malformed('a property ends behind the properties')
      if (rule.type === 'pair') continue
      if (this.#has(id)) throw protocolError(id, 'is given twice')
      if (id < 32) this.#seenLow |= 1 << id
      else this.#seenHigh |= 1 << (id - 32)
      this.#starts[id] = start
      this.#values[id] = value
      this.#ends[id] = at
    }
  }

  has(id: Property): boolean {
    return this.#has(id)
  }

  /** Value of a number or boolean property, or what stands for its absence. */
  number(id: Property, absent: number): number {
    if (!this.#has(id)) return absent
    let value = 0
    const end = this.#ends[id] ?? 0
    if (RULES[id]?.type === 'varint') return readVarint(this.#bytes, this.#values[id] ?? 0)
    for (let at = this.#values[id] ?? 0; at < end; at++) value = value * 256 + (this.#bytes[at] ?? 0)
    return value
  }

  /** Value of a text property, null without it. */
  text(id: Property): string | null {
    return this.#has(id) ? decodeText(this.#bytes, this.#values[id] ?? 0, this.#ends[id] ?? 0) : null
  }

  /** A copy of the value of a binary property, null without it. */
  binary(id: Property): Buffer | null {
    return this.#has(id) ? Buffer.from(this.#bytes.subarray(this.#values[id] ?? 0, this.#ends[id] ?? 0)) : null
  }

  /** Where the property begins (its identifier) and ends. */
  start(id: Property): number {
    return this.#starts[id] ?? 0
  }

  end(id: Property): number {
    return this.#ends[id] ?? 0
  }

  #has(id: number): boolean {
    return ((id < 32 ? this.#seenLow >>> id : this.#seenHigh >>> (id - 32)) & 1) === 1
  }
}

/** End of the variable byte integer at `at`; throws if it is not whole before `to`, or longer than four bytes or than it needs to be. */
export function varintEnd(bytes: Buffer, at: number, to: number): number {
  for (let end = at; end < to && end < at + 4; end++) {
    const byte = bytes[end] ?? 0
    if (byte >= 0x80) continue
    if (byte === 0 && end > at) throw malformed('a variable byte integer has more bytes than it needs') // [MQTT-1.5.5-1]
    return end + 1
  }
  throw malformed('a variable byte integer is too long')
}

/** Value of a variable byte integer that `varintEnd` has found whole. */
export function readVarint(bytes: Buffer, at: number): number {
  let value = 0
  let factor = 1
  for (let offset = at; ; offset++) {
    const byte = bytes[offset] ?? 0
    value += (byte & 0x7f) * factor
    if (byte < 0x80) return value
    factor *= 128
  }
}

/** End of a string or binary value with its two bytes of length. */
function sizedEnd(bytes: Buffer, at: number, to: number): number {
  const end = at + 2 + (((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0))
  if (at + 2 > to || end > to) throw malformed('a property ends behind the properties')
  return end
}

function protocolError(id: number, what: string): ProtocolError {
  return new ProtocolError(Reason.protocolError, `property 0x${id.toString(16)} ${what}`)
}

/* Judges what a server has sent on one connection, from the first byte to the last, by the standard and not by our code. */
import { isUtf8 } from 'node:buffer'

const CONNACK = 2
const PUBLISH = 3
const DISCONNECT = 14
/** Packets a server sends, with the flags they must have; PUBLISH has flags of its own. */
const FLAGS: Readonly<Record<number, number>> = { 2: 0, 4: 0, 5: 0, 6: 2, 7: 0, 9: 0, 11: 0, 13: 0, 14: 0, 15: 0 }
const AUTH = 15
/** Reason codes a server may close with (5.0, table 3-13). */
const DISCONNECT_REASONS = new Set([
  0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
  0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
])

/**
 * Throws if the packets are not what a server may send: CONNACK first and once [MQTT-3.2.0-1] [MQTT-3.2.0-2], nothing behind a refusal or behind
 * DISCONNECT [MQTT-3.14.4-1], no flags that are reserved [MQTT-2.1.3-1], topics that are topics. `level` is what the client speaks, null: unknown. `mayBeCut`: the client was gone before it had heard all. Returns
 * the reason of DISCONNECT or of the refusal in CONNACK, null: none was given.
 */
export function checkAnswers(heard: Buffer, level: number | null, { mayBeCut = false } = {}): number | null {
  let reason: number | null = null
  let isOver = false
  for (let at = 0, n = 0; at < heard.length; n++) {
    const first = heard[at] ?? 0
    const type = first >> 4
    const [length, body] = lengthAt(heard, at + 1)
    const end = body + length
    const shown = () => heard.subarray(at, end).toString('hex').slice(0, 80)
    if (end > heard.length && mayBeCut) return null
    if (end > heard.length) throw new Error(`the last packet is cut: ${shown()}`)
    if (isOver) throw new Error(`something behind the end: ${shown()}`)
    if ((n === 0) !== (type === CONNACK) && !(n === 0 && type === AUTH))
      throw new Error(`CONNACK is not the first and only: ${shown()}`)
    if (type === PUBLISH) checkPublish(heard.subarray(body, end), first, level)
    else if (FLAGS[type] !== (first & 15)) throw new Error(`a packet or flags no server sends: ${shown()}`)
    if (type === CONNACK && heard[body + 1] !== 0) {
      reason = heard[body + 1] ?? 0
      isOver = true
      if (heard[body] !== 0) throw new Error(`a refusal with a session: ${shown()}`)
    }
    if (type === DISCONNECT) {
      reason = heard[body] ?? 0
      isOver = true
      if (level !== null && level < 5) throw new Error(`DISCONNECT to ${level}: ${shown()}`)
      if (!DISCONNECT_REASONS.has(reason)) throw new Error(`no reason for a server: ${shown()}`)
    }
    at = end
  }
  return reason
}

function checkPublish(body: Buffer, first: number, level: number | null): void {
  const shown = () => `${first.toString(16)} ${body.toString('hex').slice(0, 80)}`
  const qos = (first >> 1) & 3
  const topicEnd = 2 + body.readUInt16BE(0)
  const topic = body.subarray(2, topicEnd)
  if (topicEnd > body.length || !isUtf8(topic) || topic.includes(0)) throw new Error(`no topic: ${shown()}`)
  if (/[+#]/.test(topic.toString())) throw new Error(`a topic with wildcards: ${shown()}`)
  if (topic.length === 0 && level !== null && level < 5) throw new Error(`no topic: ${shown()}`)
  if (qos === 3) throw new Error(`QoS 3: ${shown()}`)
  if (qos === 0 && (first & 8) !== 0) throw new Error(`DUP at QoS 0: ${shown()}`)
  if (qos > 0 && body.readUInt16BE(topicEnd) === 0) throw new Error(`packet id 0: ${shown()}`)
  if (level !== 5) return
  const [length, properties] = lengthAt(body, topicEnd + (qos > 0 ? 2 : 0))
  if (properties + length > body.length) throw new Error(`properties longer than the packet: ${shown()}`)
}

/** A variable byte integer, and where it ends. */
function lengthAt(bytes: Buffer, at: number): [number, number] {
  let value = 0
  for (let n = 0; n < 4; n++) {
    const byte = bytes[at + n] ?? 0
    value += (byte & 0x7f) * 128 ** n
    if (byte < 0x80) return [value, at + n + 1]
  }
  throw new Error('a length of more than four bytes')
}

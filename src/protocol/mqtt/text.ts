import { isUtf8 } from 'node:buffer'

/** True if the bytes are a string as MQTT wants it: well-formed UTF-8 [MQTT-1.5.4-1] without U+0000 [MQTT-1.5.4-2]. */
export function isText(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    if (byte === 0) return false
    if (byte > 0x7f) return isUtf8(bytes.subarray(at, to)) && !bytes.subarray(at, to).includes(0)
  }
  return true
}

/** The string, U+FEFF kept where it stands [MQTT-1.5.4-3]; null if it is not valid. */
export function decodeText(bytes: Buffer, from: number, to: number): string | null {
  return isText(bytes, from, to) ? bytes.toString('utf8', from, to) : null
}

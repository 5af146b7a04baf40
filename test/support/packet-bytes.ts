/* Packets as bytes, as the standard writes them. */

/** Bytes as they are written in the standard: `bytes('30 05 00 01', 'a', '68 69')`; hexadecimal pairs, or other text taken as UTF-8. */
export function bytes(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.map(part => {
      if (typeof part !== 'string') return part
      return /^([0-9a-f]{2}( |$))+$/i.test(part) ? Buffer.from(part.replaceAll(' ', ''), 'hex') : Buffer.from(part)
    }),
  )
}

/** A string as MQTT writes it: two bytes of length, then UTF-8. */
export function text(value: string): Buffer {
  const utf8 = Buffer.from(value)
  return Buffer.concat([Buffer.from([utf8.length >> 8, utf8.length & 0xff]), utf8])
}

/** A packet: first byte, remaining length, the rest. */
export function packet(first: number, ...parts: (string | Buffer)[]): Buffer {
  const body = bytes(...parts)
  const length: number[] = []
  let rest = body.length
  do {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from([first, ...length]), body])
}

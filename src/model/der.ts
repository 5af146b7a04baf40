/*
 * As much of DER (ITU-T X.690) as certificates and lists of revoked ones need to be looked into: values behind one another, each a tag, a length and its
 * content. Everything is bounded by the bytes given; what is not DER throws RangeError.
 */

export const DerTag = {
  integer: 0x02,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  /** [0], constructed: the version of a certificate. */
  context0: 0xa0,
} as const

/** One value; offsets into the bytes it was read from. */
export interface DerValue {
  readonly tag: number
  readonly start: number
  readonly content: number
  readonly end: number
}

/** Lengths of more bytes than these are of no file anybody has. */
const LENGTH_BYTES_MAX = 4

/** The value that begins there. */
export function readDer(bytes: Uint8Array, start: number, limit = bytes.length): DerValue {
  const tag = bytes[start]
  let length = bytes[start + 1]
  let content = start + 2
  if (tag === undefined || length === undefined || content > limit) throw new RangeError('it ends too early')
  if (length >= 0x80) {
    const count = length & 0x7f
    if (count === 0 || count > LENGTH_BYTES_MAX) throw new RangeError('a length in it is none')
    length = 0
    for (let n = 0; n < count; n++) length = length * 256 + (bytes[content + n] ?? 0)
    content += count
  }
  const end = content + length
  if (end > limit) throw new RangeError('it ends too early')
  return { tag, start, content, end }
}

/** The values inside a value, one after the other. */
export function* derValues(bytes: Uint8Array, { content, end }: DerValue): Iterable<DerValue> {
  for (let at = content; at < end; ) {
    const value = readDer(bytes, at, end)
    yield value
    at = value.end
  }
}

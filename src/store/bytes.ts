// Little-endian numbers in on-disk values. Buffer's own 48-bit readers check their bounds, which is wanted here: what is read may be damaged.

const U48_BYTES = 6

export const readU48 = (bytes: Buffer, at: number): number => bytes.readUIntLE(at, U48_BYTES)
export const writeU48 = (bytes: Buffer, value: number, at: number): number => bytes.writeUIntLE(value, at, U48_BYTES)

/** Of the last byte of a varint: 64 bits. */
const MAX_SCALE = 2 ** 63

/** Seven bits a byte, the lowest first; returns the place behind it. */
export function writeVarint(target: Buffer, at: number, value: number): number {
  let rest = value
  let to = at
  while (rest >= 0x80) {
    target[to++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  target[to++] = rest
  return to
}

/** What writeVarint wrote, and the place behind it; of what it did not write, at most ten bytes. */
export function readVarint(bytes: Buffer, at: number): { value: number; end: number } {
  let value = 0
  let scale = 1
  let end = at
  for (;;) {
    const byte = bytes[end++] ?? 0
    value += (byte & 0x7f) * scale
    if (byte < 0x80 || scale > MAX_SCALE) return { value, end }
    scale *= 0x80
  }
}

/** So many in a row, and the place behind them. */
export function readVarints(bytes: Buffer, at: number, count: number): { values: number[]; end: number } {
  const values: number[] = []
  let end = at
  for (let left = count; left > 0; left--) {
    const read = readVarint(bytes, end)
    values.push(read.value)
    end = read.end
  }
  return { values, end }
}

/** How many bits are set in the first `count` bits of a bitmap (bit i is byte i >> 3, bit i & 7). */
export function countBits(bitmap: Uint8Array, count: number): number {
  let set = 0
  const whole = count >> 3
  for (let at = 0; at < whole; at++) set += BITS[bitmap[at] ?? 0] ?? 0
  if ((count & 7) !== 0) set += BITS[(bitmap[whole] ?? 0) & ((1 << (count & 7)) - 1)] ?? 0
  return set
}

export const hasBit = (bitmap: Uint8Array, at: number): boolean => (((bitmap[at >> 3] ?? 0) >> (at & 7)) & 1) !== 0

export const bitmapBytes = (count: number): number => (count + 7) >> 3

const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let set = 0
  for (let rest = byte; rest !== 0; rest >>= 1) set += rest & 1
  return set
})

/** Fixed, so that a failure can be played again; change it to look elsewhere. */
export const MULBERRY_SEED = 20_261_123

/** Bytes that look like MQTT often enough to get past the first checks. */
export function noise(seed: number): (length: number) => Buffer {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const likely = [0x10, 0x30, 0x32, 0x40, 0x82, 0xa2, 0xc0, 0xe0, 0x00, 0x01, 0x02, 0x04, 0x26]
  return length =>
    Buffer.from(Array.from({ length }, () => (next() % 2 === 0 ? (likely[next() % likely.length] ?? 0) : next() % 256)))
}

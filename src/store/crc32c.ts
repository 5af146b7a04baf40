/*
 * CRC32C (Castagnoli, reflected polynomial 0x82F63B78), sixteen bytes a step by table lookup.
 *
 * It runs over every record on the write path and again on the read path, so it is written for V8: one flat Int32Array of
 * sixteen tables, plain byte loads, no calls inside the loop.
 */

const TABLES = buildTables()

function buildTables(): Int32Array {
  const tables = new Int32Array(16 * 256)
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1
    tables[byte] = crc
  }
  for (let at = 256; at < tables.length; at++) {
    const before = tables[at - 256] as number
    tables[at] = (before >>> 8) ^ (tables[before & 255] as number)
  }
  return tables
}

/** CRC32C of bytes[from, to). `seed` is the CRC of what came before, for values checked in pieces. */
export function crc32c(bytes: Uint8Array, from: number, to: number, seed = 0): number {
  const t = TABLES
  const b = bytes
  let crc = ~seed
  let at = from
  const last = to - 16
  while (at <= last) {
    const word =
      crc ^
      ((b[at] as number) | ((b[at + 1] as number) << 8) | ((b[at + 2] as number) << 16) | ((b[at + 3] as number) << 24))
    crc =
      (t[3840 + (word & 255)] as number) ^
      (t[3584 + ((word >>> 8) & 255)] as number) ^
      (t[3328 + ((word >>> 16) & 255)] as number) ^
      (t[3072 + (word >>> 24)] as number) ^
      (t[2816 + (b[at + 4] as number)] as number) ^
      (t[2560 + (b[at + 5] as number)] as number) ^
      (t[2304 + (b[at + 6] as number)] as number) ^
      (t[2048 + (b[at + 7] as number)] as number) ^
      (t[1792 + (b[at + 8] as number)] as number) ^
      (t[1536 + (b[at + 9] as number)] as number) ^
      (t[1280 + (b[at + 10] as number)] as number) ^
      (t[1024 + (b[at + 11] as number)] as number) ^
      (t[768 + (b[at + 12] as number)] as number) ^
      (t[512 + (b[at + 13] as number)] as number) ^
      (t[256 + (b[at + 14] as number)] as number) ^
      (t[b[at + 15] as number] as number)
    at += 16
  }
  while (at < to) {
    crc = (crc >>> 8) ^ (t[(crc ^ (b[at] as number)) & 255] as number)
    at++
  }
  return ~crc >>> 0
}

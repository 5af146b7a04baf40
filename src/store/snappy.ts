/**
 * Decompresses a raw snappy block, as LevelDB writes them; null: it isn't one. Only damaged or suspicious stores are read this way; LevelDB itself
 * uses its native code.
 */
export function decompressSnappy(bytes: Buffer): Buffer | null {
  let length = 0
  let at = 0
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined || shift > 28) return null
    length += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  if (length > MAX_BYTES) return null
  const output = Buffer.alloc(length)
  let to = 0
  while (at < bytes.length) {
    const tag = bytes[at++] ?? 0
    let run = (tag >> 2) + 1
    let distance = 0
    if ((tag & 3) === LITERAL) {
      if (run > 60) {
        const extra = run - 60
        if (at + extra > bytes.length) return null
        run = bytes.readUIntLE(at, extra) + 1
        at += extra
      }
      if (at + run > bytes.length || to + run > length) return null
      bytes.copy(output, to, at, at + run)
      at += run
      to += run
      continue
    }
    const distanceBytes = (tag & 3) === COPY_1 ? 1 : (tag & 3) === COPY_2 ? 2 : 4
    if (at + distanceBytes > bytes.length) return null
    distance = bytes.readUIntLE(at, distanceBytes)
    at += distanceBytes
    if (distanceBytes === 1) {
      run = ((tag >> 2) & 7) + 4
      distance += (tag >> 5) << 8
    }
    if (distance === 0 || distance > to || to + run > length) return null
    // Source and target may overlap: byte by byte is what the format means.
    for (let end = to + run; to < end; to++) output[to] = output[to - distance] ?? 0
  }
  return to === length ? output : null
}

const LITERAL = 0
const COPY_1 = 1
const COPY_2 = 2
/** No block of ours comes near: values are bounded by the largest packet. */
const MAX_BYTES = 512 * 1024 * 1024

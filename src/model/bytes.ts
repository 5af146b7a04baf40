// Little-endian numbers within records. Plain byte arithmetic: Buffer's own readers check bounds on every call and cost a third of the accept path.

const U32 = 0x1_0000_0000

export function readU16(bytes: Buffer, at: number): number {
  return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)
}
export function readU32(bytes: Buffer, at: number): number {
  return (
    ((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)) >>> 0
  )
}
export function readU48(bytes: Buffer, at: number): number {
  return readU32(bytes, at) + readU16(bytes, at + 4) * U32
}
export function writeU16(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
}
export function writeU32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}
export function writeU48(bytes: Buffer, at: number, value: number): void {
  writeU32(bytes, at, value >>> 0)
  const high = Math.floor(value / U32)
  bytes[at + 4] = high
  bytes[at + 5] = high >>> 8
}

/** Just enough of ELF (64 bit, little-endian: x64 and arm64) to strip an executable and to check how it will be mapped. */

const PT_LOAD = 1

/** A piece of the file that the kernel maps into memory. */
export interface Segment {
  readonly offset: number
  readonly fileBytes: number
  readonly address: number
  readonly memoryBytes: number
  readonly alignment: number
}

/** The PT_LOAD segments, by address. Throws TypeError when `elf` is not a 64-bit little-endian ELF file. */
export function loadedSegments(elf: Buffer): Segment[] {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1)
    throw new TypeError('not a 64-bit little-endian ELF file')
  const tableOffset = Number(elf.readBigUInt64LE(32))
  const entryBytes = elf.readUInt16LE(54)
  const entries = Array.from({ length: elf.readUInt16LE(56) }, (_, index) => tableOffset + index * entryBytes)
  return entries
    .filter(entry => elf.readUInt32LE(entry) === PT_LOAD)
    .map(entry => ({
      offset: Number(elf.readBigUInt64LE(entry + 8)),
      address: Number(elf.readBigUInt64LE(entry + 16)),
      fileBytes: Number(elf.readBigUInt64LE(entry + 32)),
      memoryBytes: Number(elf.readBigUInt64LE(entry + 40)),
      alignment: Number(elf.readBigUInt64LE(entry + 48)),
    }))
    .sort((one, other) => one.address - other.address)
}

/** A copy without what is never mapped: symbols, debugging sections, the section table. */
export function stripped(elf: Buffer): Buffer {
  const end = Math.max(...loadedSegments(elf).map(segment => segment.offset + segment.fileBytes))
  const copy = Buffer.from(elf.subarray(0, end))
  copy.writeBigUInt64LE(0n, 40) // e_shoff
  copy.writeUInt16LE(0, 60) // e_shnum
  copy.writeUInt16LE(0, 62) // e_shstrndx
  return copy
}

/**
 * What would go wrong where the kernel's pages have `pageBytes` (a Raspberry Pi 5 has 16 KiB): two segments in one page would both
 * get the protection of the one mapped last, and a segment whose offset and address differ by less than pages can't be mapped.
 * One sentence per fault.
 */
export function pageFaults(elf: Buffer, pageBytes: number): string[] {
  const segments = loadedSegments(elf)
  return segments.flatMap((segment, index) => {
    const name = `the segment at 0x${segment.address.toString(16)}`
    const before = segments[index - 1]
    const lastPageBefore = before === undefined ? -1 : Math.floor((before.address + before.memoryBytes - 1) / pageBytes)
    return [
      ...(lastPageBefore >= Math.floor(segment.address / pageBytes)
        ? [`${name} shares a page of ${pageBytes} bytes with the one before it`]
        : []),
      ...((segment.address - segment.offset) % pageBytes === 0
        ? []
        : [`${name} doesn't begin where a page of ${pageBytes} bytes can`]),
    ]
  })
}

/*
 * Reads a table of LevelDB (.ldb) without LevelDB, which does not check the CRCs of its blocks and whose assertions end the process when a
 * compaction or a repair meets keys that a flipped bit has put out of order.
 *
 * Layout: blocks, each followed by its type (1; 0 plain, 1 snappy) and a masked CRC32C of both (4); the last 48 bytes are the footer: places of
 * the meta index and the index block (varints), padding, magic number. The index block's values are the places of the data blocks, those of the meta
 * index of the filter.
 */
import { open, readFile } from 'node:fs/promises'
import { readVarint } from './bytes.ts'
import { crc32c } from './crc32c.ts'
import { decompressSnappy } from './snappy.ts'

const FOOTER_BYTES = 48
const BLOCK_TRAILER_BYTES = 5
const MAGIC = Buffer.from('57fb808b247547db', 'hex')
/** Behind each user key: sequence number and kind of entry. */
const INTERNAL_BYTES = 8
const KIND_VALUE = 1
const PLAIN = 0
const SNAPPY = 1
/** The number of restart points. */
const MIN_BLOCK_BYTES = 4
/** Key in the meta index. */
const FILTER_KEY = Buffer.from('filter.leveldb.BuiltinBloomFilter2')

interface Handle {
  readonly offset: number
  readonly size: number
}

/** True if the table ends in a footer. */
export async function hasFooter(path: string): Promise<boolean> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    if (size < FOOTER_BYTES) return false
    const footer = Buffer.alloc(FOOTER_BYTES)
    await file.read(footer, 0, FOOTER_BYTES, size - FOOTER_BYTES)
    return parseFooter(footer, size) !== null
  } finally {
    await file.close()
  }
}

/** True if every block is as it was written. */
export async function isTableSound(path: string): Promise<boolean> {
  const bytes = await readFile(path)
  const { blocks, isSound } = readIndexes(bytes)
  return isSound && blocks.every(block => isBlockSound(bytes, block))
}

/**
 * The values that can be had: all of sound blocks; of damaged ones those whose key and value the caller recognises as its own. A damaged index, meta
 * index, filter or footer costs nothing as long as the data blocks are sound.
 */
export async function salvageTable(
  path: string,
  isOwn: (key: Buffer, value: Buffer) => boolean,
): Promise<[Buffer, Buffer][]> {
  const bytes = await readFile(path)
  const found: [Buffer, Buffer][] = []
  let newest: Buffer = Buffer.alloc(0)
  const { blocks, isIndexSound } = readIndexes(bytes)
  for (const handle of isIndexSound ? blocks : findBlocks(bytes, blocks)) {
    const isSound = isBlockSound(bytes, handle)
    const block = readBlock(bytes, handle)
    if (block === null) continue
    for (const [key, value] of blockEntries(block)) {
      const end = key.length - INTERNAL_BYTES
      if (end < 0) continue
      const userKey = key.subarray(0, end)
      // Of several entries of a key the newest comes first, and it may be a deletion.
      const isOlder = newest.equals(userKey)
      newest = userKey
      if (!isOlder && key[end] === KIND_VALUE && (isSound || isOwn(userKey, value))) found.push([userKey, value])
    }
  }
  return found
}

interface Indexes {
  /** Data blocks, as far as the index can be read. */
  readonly blocks: Handle[]
  readonly isIndexSound: boolean
  /** All but the data blocks is as it was written: footer, both indexes, and the filter, in which a flipped bit would make LevelDB deny keys that are there. */
  readonly isSound: boolean
}

function readIndexes(bytes: Buffer): Indexes {
  const footer = parseFooter(bytes.subarray(Math.max(0, bytes.length - FOOTER_BYTES)), bytes.length)
  if (footer === null) return { blocks: [], isIndexSound: false, isSound: false }
  const index = readBlock(bytes, footer.index)
  const metaIndex = readBlock(bytes, footer.metaIndex)
  const isIndexSound = index !== null && isBlockSound(bytes, footer.index)
  const isRestSound =
    metaIndex !== null && [footer.metaIndex, ...handlesIn(metaIndex)].every(handle => isBlockSound(bytes, handle))
  return { blocks: index === null ? [] : handlesIn(index), isIndexSound, isSound: isIndexSound && isRestSound }
}

/**
 * Data blocks without a sound index. They lie one behind the other from the beginning of the table, so where one ends, the next begins, and its CRC
 * tells how long it is. Past a damaged one only what the index still says leads on; without that, the rest is given up.
 */
function findBlocks(bytes: Buffer, named: readonly Handle[]): Handle[] {
  const found: Handle[] = []
  let at = 0
  for (;;) {
    const block = soundBlockAt(bytes, at) ?? named.find(({ offset }) => offset >= at)
    if (block === undefined) return found
    const filter = filterNamedIn(bytes, block)
    if (filter !== null) return found.filter(({ offset }) => offset < filter.offset)
    found.push(block)
    at = block.offset + block.size + BLOCK_TRAILER_BYTES
  }
}

/** The sound block that begins there, whatever its length; null: none. Reads on to the end of the table if there is none. */
function soundBlockAt(bytes: Buffer, offset: number): Handle | null {
  let crc = 0
  let summed = offset
  for (let end = offset + MIN_BLOCK_BYTES; end + BLOCK_TRAILER_BYTES <= bytes.length; end++) {
    if (bytes[end] !== PLAIN && bytes[end] !== SNAPPY) continue
    crc = crc32c(bytes, summed, end + 1, crc)
    summed = end + 1
    if (crc === unmaskCrc(bytes.readUInt32LE(summed))) return { offset, size: end - offset }
  }
  return null
}

/** Where the filter is, if this block is the meta index: filter, meta index and index follow the data blocks. */
function filterNamedIn(bytes: Buffer, handle: Handle): Handle | null {
  const [entry] = blockEntries(readBlock(bytes, handle) ?? Buffer.alloc(0))
  return entry?.[0].equals(FILTER_KEY) === true ? readHandle(entry[1], 0).handle : null
}

const handlesIn = (index: Buffer): Handle[] => [...blockEntries(index)].map(([, value]) => readHandle(value, 0).handle)

function parseFooter(footer: Buffer, size: number): { metaIndex: Handle; index: Handle } | null {
  if (footer.length < FOOTER_BYTES || !footer.subarray(FOOTER_BYTES - MAGIC.length).equals(MAGIC)) return null
  const meta = readHandle(footer, 0)
  const index = readHandle(footer, meta.end)
  const isInside = (handle: Handle) => handle.offset + handle.size + BLOCK_TRAILER_BYTES <= size - FOOTER_BYTES
  return isInside(meta.handle) && isInside(index.handle) ? { metaIndex: meta.handle, index: index.handle } : null
}

function isBlockSound(bytes: Buffer, { offset, size }: Handle): boolean {
  const end = offset + size
  if (end + BLOCK_TRAILER_BYTES > bytes.length) return false
  return unmaskCrc(bytes.readUInt32LE(end + 1)) === crc32c(bytes, offset, end + 1)
}

/** The block's content, sound or not; null: there is none. */
function readBlock(bytes: Buffer, handle: Handle): Buffer | null {
  if (handle.offset + handle.size >= bytes.length) return null
  const content = bytes.subarray(handle.offset, handle.offset + handle.size)
  return bytes[handle.offset + handle.size] === PLAIN ? content : decompressSnappy(content)
}

/**
 * Entries of a block: shared key bytes, own key bytes, value bytes (varints), own key bytes, value; then restart points (4 each) and their
 * number (4). Ends where a damaged block makes no sense any more.
 */
function* blockEntries(block: Buffer): Generator<[Buffer, Buffer]> {
  if (block.length < 4) return
  const end = block.length - 4 - block.readUInt32LE(block.length - 4) * 4
  let key: Buffer = Buffer.alloc(0)
  let at = 0
  while (at < end) {
    const shared = readVarint(block, at)
    const own = readVarint(block, shared.end)
    const value = readVarint(block, own.end)
    const valueAt = value.end + own.value
    at = valueAt + value.value
    if (shared.value > key.length || at > end) return
    key = Buffer.concat([key.subarray(0, shared.value), block.subarray(value.end, valueAt)])
    yield [key, block.subarray(valueAt, at)]
  }
}

function readHandle(bytes: Buffer, at: number): { handle: Handle; end: number } {
  const offset = readVarint(bytes, at)
  const size = readVarint(bytes, offset.end)
  return { handle: { offset: offset.value, size: size.value }, end: size.end }
}

/** LevelDB stores CRCs rotated and shifted by a constant. */
export function unmaskCrc(masked: number): number {
  const rotated = (masked - 0xa282_ead8) >>> 0
  return ((rotated >>> 17) | (rotated << 15)) >>> 0
}

export function maskCrc(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282_ead8) >>> 0
}

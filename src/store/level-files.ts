/*
 * Looks at the files of a LevelDB before it is opened. LevelDB opens with a damaged MANIFEST or log file without an error and with records
 * missing, and then deletes the tables it no longer knows; so damage has to be found first, while everything is still there.
 *
 * Log files and MANIFEST: blocks of 32 KiB; records of CRC32C masked (4), length (2), type (1), data. Tables (.ldb): blocks, each
 * followed by type (1) and masked CRC32C (4); the last 48 bytes are the footer, with the place of the index block and a magic number.
 */
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32c } from './crc32c.ts'

const BLOCK_BYTES = 32 * 1024
const RECORD_HEADER_BYTES = 7
const LAST_RECORD_TYPE = 4
const FOOTER_BYTES = 48
const BLOCK_TRAILER_BYTES = 5
const MAGIC = Buffer.from('57fb808b247547db', 'hex')

/**
 * What is wrong with these files, in words; null: nothing that can be seen. `everyBlock`: check every block of every table (needs tables
 * without compression), else only that each table has its footer. A torn end of a log file is not reported: a power cut leaves one.
 */
export async function findFault(location: string, { everyBlock }: { everyBlock: boolean }): Promise<string | null> {
  const files = await readdir(location)
  const current = await readFile(join(location, 'CURRENT'), 'latin1').catch(() => null)
  if (current === null) return 'CURRENT is missing'
  const manifest = /^(MANIFEST-\d{6,})\n$/.exec(current)?.[1]
  if (manifest === undefined) return 'CURRENT names no MANIFEST'
  if (!files.includes(manifest)) return `${manifest} is missing`
  const manifestScan = scanLogFile(await readFile(join(location, manifest)))
  if (manifestScan.records === 0 || manifestScan.isBroken || manifestScan.isTorn) return `${manifest} is damaged`
  for (const file of files) {
    if (file.endsWith('.log') && scanLogFile(await readFile(join(location, file))).isBroken) return `${file} is damaged`
    if (/\.(ldb|sst)$/.test(file)) {
      const isSound = everyBlock
        ? await isTableSound(join(location, file))
        : (await readFooter(join(location, file))) !== null
      if (!isSound) return `${file} is damaged`
    }
  }
  return null
}

interface LogFileScan {
  readonly records: number
  /** A sound record lies behind a damaged one. */
  readonly isBroken: boolean
  /** It ends in something that is no record. */
  readonly isTorn: boolean
}

/** Walks the records of a log file or MANIFEST. */
export function scanLogFile(bytes: Buffer): LogFileScan {
  let records = 0
  let isTorn = false
  let isBroken = false
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, bytes.length)
    let at = block
    while (at + RECORD_HEADER_BYTES <= end) {
      const length = bytes.readUInt16LE(at + 4)
      const type = bytes[at + 6] ?? 0
      const next = at + RECORD_HEADER_BYTES + length
      const isSound =
        type >= 1 &&
        type <= LAST_RECORD_TYPE &&
        next <= end &&
        unmask(bytes.readUInt32LE(at)) === crc32c(bytes, at + 6, next)
      if (!isSound) {
        isTorn = true
        break
      }
      if (isTorn) isBroken = true
      records++
      at = next
    }
    if (at < end && end - at < RECORD_HEADER_BYTES && end < block + BLOCK_BYTES) isTorn = true
  }
  return { records, isBroken, isTorn }
}

interface Handle {
  readonly offset: number
  readonly size: number
}

/** Place of the index block; null: no footer where one should be. */
async function readFooter(path: string): Promise<{ metaIndex: Handle; index: Handle } | null> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    if (size < FOOTER_BYTES) return null
    const footer = Buffer.alloc(FOOTER_BYTES)
    await file.read(footer, 0, FOOTER_BYTES, size - FOOTER_BYTES)
    return parseFooter(footer, size)
  } finally {
    await file.close()
  }
}

function parseFooter(footer: Buffer, size: number): { metaIndex: Handle; index: Handle } | null {
  if (!footer.subarray(FOOTER_BYTES - MAGIC.length).equals(MAGIC)) return null
  const meta = readHandle(footer, 0)
  const index = readHandle(footer, meta.end)
  const isInside = (handle: Handle) => handle.offset + handle.size + BLOCK_TRAILER_BYTES <= size - FOOTER_BYTES
  return isInside(meta.handle) && isInside(index.handle) ? { metaIndex: meta.handle, index: index.handle } : null
}

async function isTableSound(path: string): Promise<boolean> {
  const bytes = await readFile(path)
  if (bytes.length < FOOTER_BYTES) return false
  const footer = parseFooter(bytes.subarray(bytes.length - FOOTER_BYTES), bytes.length)
  if (footer === null || !isBlockSound(bytes, footer.metaIndex) || !isBlockSound(bytes, footer.index)) return false
  // LevelDB's repair writes compressed tables whatever the settings; those are checked as far as they can be read.
  if (bytes[footer.index.offset + footer.index.size] !== 0) return true
  for (const block of readIndexBlock(bytes.subarray(footer.index.offset, footer.index.offset + footer.index.size))) {
    if (!isBlockSound(bytes, block)) return false
  }
  return true
}

function isBlockSound(bytes: Buffer, { offset, size }: Handle): boolean {
  const end = offset + size
  if (end + BLOCK_TRAILER_BYTES > bytes.length) return false
  return unmask(bytes.readUInt32LE(end + 1)) === crc32c(bytes, offset, end + 1)
}

/** Entries: shared key bytes, own key bytes, value bytes (varints), key, value; then restart points (4 each) and their number (4). */
function* readIndexBlock(block: Buffer): Generator<Handle> {
  const restarts = block.readUInt32LE(block.length - 4)
  const end = block.length - 4 - restarts * 4
  let at = 0
  while (at < end) {
    const shared = readVarint(block, at)
    const own = readVarint(block, shared.end)
    const value = readVarint(block, own.end)
    at = value.end + own.value
    yield readHandle(block, at).handle
    at += value.value
  }
}

function readHandle(bytes: Buffer, at: number): { handle: Handle; end: number } {
  const offset = readVarint(bytes, at)
  const size = readVarint(bytes, offset.end)
  return { handle: { offset: offset.value, size: size.value }, end: size.end }
}

function readVarint(bytes: Buffer, at: number): { value: number; end: number } {
  let value = 0
  let scale = 1
  let end = at
  for (;;) {
    const byte = bytes[end++] ?? 0
    value += (byte & 0x7f) * scale
    if (byte < 0x80) return { value, end }
    scale *= 0x80
  }
}

/** LevelDB stores CRCs rotated and shifted by a constant. */
function unmask(masked: number): number {
  const rotated = (masked - 0xa282_ead8) >>> 0
  return ((rotated >>> 17) | (rotated << 15)) >>> 0
}

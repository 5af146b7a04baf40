import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { loadedSegments, pageFaults } from '../../scripts/elf.ts'
import type { Architecture } from '../../src/assets.ts'
import { BUILD_DEADLINE_MS, builtExecutable } from '../support/executable.ts'

const KIB = 1024

/** Pages of the kernels for each architecture. x86-64 knows no other size, and the published x64 runtime is linked for that. */
const PAGES: readonly (readonly [Architecture, number])[] = [
  ['x64', 4 * KIB],
  ['arm64', 4 * KIB],
  ['arm64', 16 * KIB],
  ['arm64', 64 * KIB],
]

describe('the executable as the kernel maps it', () => {
  beforeAll(async () => {
    await builtExecutable()
  }, BUILD_DEADLINE_MS)

  test.each(PAGES)('%s: no two segments share a page of %i bytes', async (architecture, pageBytes) => {
    const elf = readFileSync(await builtExecutable(architecture))
    expect(loadedSegments(elf).length).toBeGreaterThanOrEqual(3)
    expect(pageFaults(elf, pageBytes)).toEqual([])
  })

  test.each(['x64', 'arm64'] as const)('%s: holds nothing behind what is mapped', async architecture => {
    const elf = readFileSync(await builtExecutable(architecture))
    const end = Math.max(...loadedSegments(elf).map(segment => segment.offset + segment.fileBytes))
    expect(elf.length - end).toBeLessThan(64 * KIB)
  })

  test('the check sees segments that share a page', () => {
    expect(
      pageFaults(
        elfOf([
          { offset: 0, address: 0x400000, bytes: 0x1100 },
          { offset: 0x1800, address: 0x401800, bytes: 0x100 },
        ]),
        4 * KIB,
      ),
    ).toEqual(['the segment at 0x401800 shares a page of 4096 bytes with the one before it'])
  })

  test('the check sees segments that pages of that size cannot hold', () => {
    expect(pageFaults(elfOf([{ offset: 0x1000, address: 0x400000, bytes: 0x100 }]), 16 * KIB)).toEqual([
      "the segment at 0x400000 doesn't begin where a page of 16384 bytes can",
    ])
  })

  test('a file that is no ELF is refused', () => {
    expect(() => loadedSegments(Buffer.from('#!/bin/sh\n'))).toThrow(TypeError)
  })
})

/** The headers of an ELF file with these PT_LOAD segments and no contents. */
function elfOf(segments: readonly { offset: number; address: number; bytes: number }[]): Buffer {
  const elf = Buffer.alloc(64 + segments.length * 56)
  elf.write('\x7fELF\x02\x01', 'latin1')
  elf.writeBigUInt64LE(64n, 32)
  elf.writeUInt16LE(56, 54)
  elf.writeUInt16LE(segments.length, 56)
  for (const [index, { offset, address, bytes }] of segments.entries()) {
    const entry = 64 + index * 56
    elf.writeUInt32LE(1, entry)
    elf.writeBigUInt64LE(BigInt(offset), entry + 8)
    elf.writeBigUInt64LE(BigInt(address), entry + 16)
    elf.writeBigUInt64LE(BigInt(bytes), entry + 32)
    elf.writeBigUInt64LE(BigInt(bytes), entry + 40)
  }
  return elf
}

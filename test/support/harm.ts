import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const PAGE_BYTES = 4096

/** What becomes of the bytes of a file; null: it is deleted. */
export type Harm = (bytes: Buffer) => Buffer | null

const flip =
  (share: number): Harm =>
  bytes => {
    const at = Math.min(bytes.length - 1, Math.floor(bytes.length * share))
    bytes[at] = (bytes[at] ?? 0) ^ 0x10
    return bytes
  }

export const HARMS: [string, Harm][] = [
  ...[0.001, 0.5, 0.999].map((share): [string, Harm] => [`a bit flipped at ${share * 100} %`, flip(share)]),
  ['cut in half', bytes => bytes.subarray(0, bytes.length >> 1)],
  ['cut by 40 bytes', bytes => bytes.subarray(0, Math.max(0, bytes.length - 40))],
  [
    'with a page of zeros in the middle',
    bytes => {
      const at = Math.floor(bytes.length / 2 / PAGE_BYTES) * PAGE_BYTES
      return bytes.fill(0, at, Math.min(bytes.length, at + PAGE_BYTES))
    },
  ],
  ['zeroed', bytes => bytes.fill(0)],
  ['emptied', () => Buffer.alloc(0)],
  ['deleted', () => null],
]

/** Every kind of file of the store: what it is, its folder, its name. */
export const STORE_FILES: [string, string, RegExp][] = [
  ['log/ write-ahead file', 'log', /\.log$/],
  ['log/ table', 'log', /\.ldb$/],
  ['log/ MANIFEST', 'log', /^MANIFEST/],
  ['log/ CURRENT', 'log', /^CURRENT$/],
  ['state/ write-ahead file', 'state', /\.log$/],
  ['state/ table', 'state', /\.ldb$/],
  ['state/ MANIFEST', 'state', /^MANIFEST/],
  ['state/ CURRENT', 'state', /^CURRENT$/],
  ['high-water mark', '', /^high-water$/],
]

/** Harms one file of a folder: the middle one, neither the oldest nor the newest where there are several. It is not written into, as others may share it. */
export async function harmOne(folder: string, pattern: RegExp, harm: Harm): Promise<void> {
  const files = (await readdir(folder)).filter(file => pattern.test(file)).sort()
  const file = files[files.length >> 1]
  if (file === undefined) throw new Error(`no file like ${pattern} in ${folder}`)
  const path = join(folder, file)
  const harmed = harm(await readFile(path))
  await rm(path)
  if (harmed !== null) await writeFile(path, harmed)
}

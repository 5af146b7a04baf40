import { BUNDLE_NAME, isExecutable, readAsset } from './assets.ts'

/*
 * Readable stack traces in the executable: its one bundle is traced back to the files and lines of the sources, by a table the
 * build puts beside the code. Lines are exact; columns stay those of the bundle and are left out. Nothing is read before
 * somebody looks at `error.stack`, and the table is the executable's own mapped pages.
 */

const BUNDLE_POSITION = new RegExp(`\\b${BUNDLE_NAME.replace('.', '\\.')}:(\\d+):\\d+`, 'g')

/** Bytes per line of the bundle in the asset `stack-lines`: file number and line, uint32 little-endian each; file 0 is no file. */
export const STACK_LINE_BYTES = 8

/** From now on `error.stack` names the sources. When running from the sources it does so anyway. */
export function installStackTraces(): void {
  if (!isExecutable) return
  Error.prepareStackTrace = (error, sites) =>
    [Error.prototype.toString.call(error), ...sites.map(site => `    at ${site}`)]
      .join('\n')
      .replace(BUNDLE_POSITION, nameSource)
}

let files: readonly string[] | null = null

function nameSource(position: string, bundleLine: string): string {
  files ??= JSON.parse(Buffer.from(readAsset('stack-files.json')).toString()) as readonly string[]
  const lines = readAsset('stack-lines')
  const offset = (Number(bundleLine) - 1) * STACK_LINE_BYTES
  if (offset + STACK_LINE_BYTES > lines.byteLength) return position
  const view = new DataView(lines.buffer, offset, STACK_LINE_BYTES)
  const file = files[view.getUint32(0, true) - 1]
  return file === undefined ? position : `${file}:${view.getUint32(4, true)}`
}

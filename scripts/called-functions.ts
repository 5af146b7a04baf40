/**
 * Runs the bundle as the executable would and writes which of its functions were called, to `called.json` in the directory with the assets:
 * `called-functions.ts DIRECTORY ARGUMENT…`. See code-cache.ts.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { join } from 'node:path'
import { BUNDLE_NAME } from '../src/assets.ts'
import { compileBundle, requireOnUse } from '../src/bundle.ts'

const [, , directory = '.', ...args] = process.argv
const sea = {
  isSea: () => true,
  getRawAsset: (name: string) => {
    const { buffer, byteOffset, byteLength } = readFileSync(join(directory, name))
    return buffer.slice(byteOffset, byteOffset + byteLength)
  },
}

// Whatever a session of one's own thread is asked it answers before `post` returns.
const session = new Session()
session.connect()
session.post('Profiler.enable')
session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false })
process.once('exit', () => session.post('Profiler.takePreciseCoverage', (_, { result }) => writeCalled(result)))

process.argv = [process.execPath, process.execPath, ...args]
const { run } = compileBundle(readFileSync(join(directory, BUNDLE_NAME), 'latin1'), null)
run(requireOnUse(name => (name === 'node:sea' ? sea : process.getBuiltinModule(name))))

/** Writes the offsets in the bundle where functions begin that were called. */
function writeCalled(scripts: readonly { url: string; functions: readonly FunctionCoverage[] }[]): void {
  const functions = scripts.find(({ url }) => url === BUNDLE_NAME)?.functions ?? []
  const offsets = functions.flatMap(({ ranges: [whole] }) =>
    whole !== undefined && whole.count > 0 ? [whole.startOffset] : [],
  )
  writeFileSync(join(directory, 'called.json'), JSON.stringify(offsets))
}

interface FunctionCoverage {
  readonly ranges: readonly { readonly startOffset: number; readonly count: number }[]
}

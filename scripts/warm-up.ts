/**
 * Runs commands of the bundle as the executable would, one after the other, and writes V8's code cache of all that ran:
 * `warm-up.ts DIRECTORY`. The directory holds the assets and `sample.yaml`; the cache becomes one of the assets. See code-cache.ts.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BUNDLE_NAME } from '../src/assets.ts'
import { compileBundle } from '../src/bundle.ts'

const [, , directory = '.'] = process.argv
const sea = {
  isSea: () => true,
  getRawAsset: (name: string) => {
    const { buffer, byteOffset, byteLength } = readFileSync(join(directory, name))
    return buffer.slice(byteOffset, byteOffset + byteLength)
  },
}

/** The first reads a configuration, the second loads all that a gateway consists of. */
const commands = [
  ['check', join(directory, 'sample.yaml')],
  ['run', '--help'],
]

const { script, run } = compileBundle(readFileSync(join(directory, BUNDLE_NAME), 'latin1'), null)

// A command is over when nothing is left to wait for.
process.on('beforeExit', () => {
  const command = commands.shift()
  if (command === undefined) return
  process.argv = [process.execPath, process.execPath, ...command]
  run(name => (name === 'node:sea' ? sea : process.getBuiltinModule(name)))
})
process.once('exit', () => writeFileSync(join(directory, 'code-cache'), script.createCachedData()))

/**
 * Compiles the functions of the bundle that `called.json` names, runs none of them, and writes V8's code cache: `compile-functions.ts DIRECTORY`.
 * See code-cache.ts.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { join } from 'node:path'
import { BUNDLE_NAME } from '../src/assets.ts'
import { compileBundle } from '../src/bundle.ts'

const [, , directory = '.'] = process.argv
const offsets: readonly number[] = JSON.parse(readFileSync(join(directory, 'called.json'), 'utf8'))
const text = readFileSync(join(directory, BUNDLE_NAME), 'latin1')
const { script } = compileBundle(text, null)
// Makes the one function that is the bundle, and the script known to the debugger.
script.runInThisContext()

const session = new Session()
session.connect()
let scriptId = ''
session.on('Debugger.scriptParsed', ({ params }) => {
  if (params.url === BUNDLE_NAME) scriptId = params.scriptId
})
session.post('Debugger.enable')
let lineNumber = 0
let lineStart = 0
for (const offset of offsets) {
  for (let next = text.indexOf('\n', lineStart); next >= 0 && next < offset; next = text.indexOf('\n', lineStart)) {
    lineStart = next + 1
    lineNumber++
  }
  const start = { scriptId, lineNumber, columnNumber: offset - lineStart }
  // To say where in a function one could stop the debugger compiles it, and nothing but it.
  session.post(
    'Debugger.getPossibleBreakpoints',
    { start, end: { ...start, columnNumber: start.columnNumber + 1 }, restrictToFunction: true },
    error => {
      if (error !== null) throw error
    },
  )
}
session.disconnect()
writeFileSync(join(directory, 'code-cache'), script.createCachedData())

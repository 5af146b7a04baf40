import { BUNDLE_NAME, readAsset } from './assets.ts'
import { compileBundle, requireOnUse } from './bundle.ts'

/*
 * The first code of the executable, packed by scripts/build-binary.ts as the main script of Node's single executable. It could be the
 * bundle itself; this way the bundle has a code cache that holds the functions of a whole start and not only the outermost one.
 */

const text = Buffer.from(readAsset(BUNDLE_NAME).buffer).toString('latin1')
const codeCache = readAsset('code-cache')
compileBundle(text, codeCache.byteLength === 0 ? null : codeCache).run(requireOnUse(process.getBuiltinModule))

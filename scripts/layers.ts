/*
 * Holds src/ and firmware-sim/ to the table of layers (docs/architecture.md): who may import whom, no cycles, no barrel files.
 *
 *   node scripts/layers.ts
 */
import { join } from 'node:path'
import { type Import, readFiles, readImports, type SourceFiles } from './imports.ts'

export interface Violation {
  readonly path: string
  readonly line: number
  readonly rule: string
  readonly instead: string
}

interface Layer {
  readonly name: string
  readonly has: (path: string) => boolean
  /** Folders (ending in /) and files it may import besides its own. */
  readonly may: readonly string[]
  /** Packages and node: modules it must not import, with what to do instead. */
  readonly mustNot?: { readonly modules: RegExp; readonly instead: string }
  readonly instead: string
}

/** The types of config/schema.ts too, for the slices that modules take: see `judge`. */
const EVERYWHERE = ['src/model/', 'src/telemetry/']
const SOCKETS = /^node:(?:net|tls|http|https|http2|dgram)$|^(?:hono|@hono\/.*|amqplib|ws)$/
const NO_SOCKETS = {
  modules: SOCKETS,
  instead: 'bytes and sockets belong to transport/ and api/; take an interface as an argument',
}
const AMQP_CLIENT_FILE = 'src/bridge/amqp-link.ts'

const folder = (name: string) => (path: string) => path.startsWith(name)
const oneOf =
  (...paths: readonly string[]) =>
  (path: string) =>
    paths.includes(path)

/** First match counts. */
const LAYERS: readonly Layer[] = [
  {
    name: 'model/',
    has: folder('src/model/'),
    may: [],
    mustNot: { modules: /^node:(?!buffer$)/, instead: 'model/ is pure: pass in what the system knows as an argument' },
    instead: 'move the value both need into model/',
  },
  {
    name: 'telemetry/',
    has: folder('src/telemetry/'),
    may: ['src/model/'],
    mustNot: NO_SOCKETS,
    instead: 'hand the figure in as a read function (telemetry/metrics.ts)',
  },
  {
    name: 'config/',
    has: folder('src/config/'),
    may: ['src/model/'],
    mustNot: NO_SOCKETS,
    instead: 'move the rule both need into model/',
  },
  {
    name: 'store/',
    has: folder('src/store/'),
    may: EVERYWHERE,
    mustNot: NO_SOCKETS,
    instead: 'the store knows bytes and queue numbers only; let core/ pass what it needs',
  },
  {
    name: 'core/',
    has: folder('src/core/'),
    may: [...EVERYWHERE, 'src/store/'],
    mustNot: NO_SOCKETS,
    instead: 'let the other side implement a small interface that core/ defines (core/consumer.ts is one)',
  },
  ...['mqtt', 'amqp', 'stomp'].map(protocol => ({
    name: `protocol/${protocol}/`,
    has: folder(`src/protocol/${protocol}/`),
    may: [...EVERYWHERE, 'src/core/'],
    mustNot: {
      modules: /^node:(?:net|tls|http|https|http2)$|^amqplib$/,
      instead: 'take a duplex stream; transport/ opens sockets',
    },
    instead:
      'publish through core/router.ts and consume through core/consumer.ts; protocols do not know each other, nor store/, nor transport/',
  })),
  {
    name: 'bridge/',
    has: folder('src/bridge/'),
    may: [...EVERYWHERE, 'src/core/'],
    instead: 'take messages from a core/queue.ts as a consumer; broker.ts connects the two',
  },
  {
    name: 'transport/',
    has: folder('src/transport/'),
    may: EVERYWHERE,
    instead: 'transport/ is handed an accept function; broker.ts ties it to a protocol',
  },
  {
    name: 'api/',
    has: folder('src/api/'),
    may: [...EVERYWHERE, 'src/core/', 'src/bridge/', 'src/config/'],
    instead: 'ask for it through api/gateway.ts, which broker.ts implements',
  },
  {
    name: 'cli demo',
    has: path => path === 'src/cli/commands/demo.ts' || path.startsWith('src/cli/demo/'),
    may: [
      ...EVERYWHERE,
      'src/cli/',
      'src/api/contract.ts',
      'src/config/',
      'src/broker.ts',
      'firmware-sim/',
      'scripts/peers.ts',
    ],
    instead: 'the demo sees the gateway as a user does: broker.ts, HTTP, firmware-sim',
  },
  {
    name: 'cli run',
    has: oneOf('src/cli/commands/run.ts'),
    may: [...EVERYWHERE, 'src/cli/', 'src/config/', 'src/broker.ts'],
    instead: 'compose it in broker.ts',
  },
  {
    name: 'cli check',
    has: oneOf('src/cli/commands/check.ts', 'src/cli/acl-question.ts'),
    // It answers what the rules of a file would say, without a gateway.
    may: [...EVERYWHERE, 'src/cli/', 'src/config/', 'src/core/acl.ts'],
    instead: 'commands talk HTTP to a running gateway: add what is missing to api/contract.ts',
  },
  {
    name: 'cli/',
    has: folder('src/cli/'),
    may: [...EVERYWHERE, 'src/cli/', 'src/api/contract.ts', 'src/config/', 'src/version.ts'],
    instead: 'commands talk HTTP to a running gateway: add what is missing to api/contract.ts',
  },
  {
    name: 'broker',
    // The composition root and the files it is told apart into: what the API sees, what the metrics read.
    has: oneOf(
      'src/broker.ts',
      'src/gateway.ts',
      'src/gateway-model.ts',
      'src/gateway-retained.ts',
      'src/gateway-sys.ts',
      'src/gateway-dead-letters.ts',
      'src/gateway-definitions.ts',
      'src/gateway-forecasts.ts',
      'src/gateway-listeners.ts',
      'src/gateway-sessions.ts',
      'src/gateway-streams.ts',
      'src/gateway-message.ts',
      'src/gateway-users.ts',
      'src/gateway-reload.ts',
      'src/gateway-metrics.ts',
    ),
    may: ['src/'],
    instead: 'nothing above it exists',
  },
  {
    name: 'program',
    // Entry points and what the executable needs around the program.
    has: path => /^src\/[^/]+\.ts$/.test(path),
    may: [
      'src/model/',
      'src/cli/main.ts',
      'src/main.ts',
      'src/addon.ts',
      'src/assets.ts',
      'src/bundle.ts',
      'src/stack-traces.ts',
      'src/version.ts',
    ],
    instead: 'compose it in broker.ts',
  },
  {
    name: 'firmware-sim/',
    has: folder('firmware-sim/'),
    may: [],
    instead: 'devices share no code with the gateway: use a package, or write it as a device would',
  },
]

/** The folder within which files import one another freely: `src/core/`, `src/protocol/mqtt/`, `firmware-sim/`. */
const ownFolder = (path: string): string => {
  const parts = path.split('/')
  const depth = path.startsWith('src/protocol/') ? 3 : path.startsWith('src/') ? 2 : 1
  return parts.length > depth ? `${parts.slice(0, depth).join('/')}/` : path
}

/** Every import that breaks the table, every cycle, every file that passes on what others define. */
export function findViolations(files: SourceFiles): Violation[] {
  const violations: Violation[] = []
  const graph = new Map<string, Import[]>()
  for (const [path, text] of files) {
    const layer = LAYERS.find(candidate => candidate.has(path))
    if (layer === undefined) {
      violations.push({
        path,
        line: 1,
        rule: 'this file is in no layer',
        instead: 'put it into one of the folders of docs/architecture.md',
      })
      continue
    }
    const imports = readImports(path, text)
    graph.set(path, imports)
    for (const found of imports) {
      const fault = judge(path, layer, found)
      if (fault !== null) violations.push({ path, line: found.line, ...fault })
    }
  }
  return [...violations, ...findCycles(graph)].toSorted((a, b) => a.path.localeCompare(b.path) || a.line - b.line)
}

function judge(path: string, layer: Layer, found: Import): { rule: string; instead: string } | null {
  const { specifier, target, isReexport, isTypeOnly } = found
  if (isReexport) {
    return {
      rule: `passes on what ${specifier} defines (barrel)`,
      instead: 'import from the file that defines the thing',
    }
  }
  if (target === null) {
    if (specifier === 'amqplib' && path.startsWith('src/bridge/') && path !== AMQP_CLIENT_FILE) {
      return { rule: 'imports the AMQP client', instead: `only ${AMQP_CLIENT_FILE} knows it` }
    }
    return layer.mustNot?.modules.test(specifier)
      ? { rule: `${layer.name} must not import ${specifier}`, instead: layer.mustNot.instead }
      : null
  }
  if (target.startsWith(ownFolder(path)) && layer.name !== 'program') return null
  if (isTypeOnly && target === 'src/config/schema.ts' && path.startsWith('src/')) return null
  if (layer.may.some(allowed => (allowed.endsWith('/') ? target.startsWith(allowed) : target === allowed))) return null
  return { rule: `${layer.name} must not import ${target}`, instead: layer.instead }
}

/** Circles of imports that exist at run time and at load time; types are erased, `import()` comes later. */
function findCycles(graph: ReadonlyMap<string, readonly Import[]>): Violation[] {
  const violations: Violation[] = []
  const done = new Set<string>()
  const walk = (path: string, trail: readonly string[]): void => {
    for (const { target, line, isTypeOnly, isLazy } of graph.get(path) ?? []) {
      if (target === null || isTypeOnly || isLazy || !graph.has(target)) continue
      const start = trail.indexOf(target)
      if (start >= 0) {
        const circle = [...trail.slice(start), target].join(' → ')
        violations.push({
          path,
          line,
          rule: `closes a circle: ${circle}`,
          instead: 'move what both need into a third file',
        })
      } else if (!done.has(target)) walk(target, [...trail, target])
    }
    done.add(path)
  }
  for (const path of graph.keys()) if (!done.has(path)) walk(path, [path])
  return violations
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '..')
  const files = readFiles(root, ['src', 'firmware-sim'], '.ts')
  const violations = findViolations(files)
  for (const { path, line, rule, instead } of violations)
    console.error(`${path}:${line}: ${rule}. Instead: ${instead}.`)
  if (violations.length === 0) console.log(`layers: ${files.size} files keep to the table`)
  process.exitCode = violations.length === 0 ? 0 : 1
}

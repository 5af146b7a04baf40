import { nearestWord } from './nearest.ts'
import type { ConfigProblem } from './problem.ts'
import { nodeAt, type OptionNode, pathText } from './tree.ts'

const PREFIX = 'SLUICE_'
/** For the command line's way to a running gateway; no options of the gateway. */
const NOT_OPTIONS = new Set(['SLUICE_TOKEN', 'SLUICE_URL'])

/** One option set from outside the file. */
export interface Override {
  readonly origin: string
  readonly path: readonly string[]
  readonly text: string
}

/** `SLUICE_HTTP__PORT=…` and `--set http.port=…`; the command line comes last and wins. A list takes its single item. */
export function readOverrides({
  env,
  set,
}: {
  env: Readonly<Record<string, string | undefined>>
  set: readonly string[]
}): { overrides: Override[]; problems: ConfigProblem[] } {
  const overrides: Override[] = []
  const problems: ConfigProblem[] = []
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith(PREFIX) || NOT_OPTIONS.has(name) || text === undefined) continue
    overrides.push({ origin: name, path: name.slice(PREFIX.length).toLowerCase().split('__'), text })
  }
  for (const assignment of set) {
    const equals = assignment.indexOf('=')
    if (equals < 1) {
      problems.push({
        ...nowhere('--set'),
        path: '',
        message: `"${assignment}" is no assignment; accepted is KEY.KEY=VALUE`,
      })
      continue
    }
    const path = assignment.slice(0, equals).split('.')
    overrides.push({ origin: `--set ${pathText(path)}`, path, text: assignment.slice(equals + 1) })
  }
  return { overrides, problems }
}

/** Writes an override into the values of the file. Returns what is wrong with it, or null. */
export function applyOverride(
  root: OptionNode,
  values: Record<string, unknown>,
  override: Override,
): ConfigProblem | null {
  const { origin, path, text } = override
  let node = root
  let holder = values
  for (const [depth, word] of path.entries()) {
    const key = node.kind === 'named' ? existingName(holder, word) : word
    // zod skips __proto__ silently, so it is not left to the schema.
    const child = key === '__proto__' ? undefined : nodeAt(node, [key])
    if (child === undefined || node.kind === 'list' || node.kind === 'value') {
      return { ...nowhere(origin), path: pathText(path), message: unknownKey(node, word) }
    }
    node = child
    if (node.kind === 'sections') {
      return {
        ...nowhere(origin),
        path: pathText(path),
        message: 'this is a list of sections; only the file can set it',
      }
    }
    if (depth < path.length - 1) {
      const inner = (Object.hasOwn(holder, key) ? holder[key] : undefined) ?? {}
      // Something else than a section stands there; the schema will say so.
      if (typeof inner !== 'object' || Array.isArray(inner)) return null
      define(holder, key, inner)
      holder = inner as Record<string, unknown>
    } else if (node.kind === 'group' || node.kind === 'named') {
      return { ...nowhere(origin), path: pathText(path), message: 'this is a section; set one of its keys' }
    } else {
      define(holder, key, node.kind === 'list' ? [text] : text)
    }
  }
  return null
}

/** `unknown key "prot" (did you mean "port"?); accepted here: host, port`. */
export function unknownKey(parent: OptionNode | undefined, key: string): string {
  const keys = parent?.kind === 'group' ? [...parent.keys.keys()] : []
  const nearest = nearestWord(key, keys)
  const meant = nearest === null ? '' : ` (did you mean "${nearest}"?)`
  return `unknown key ${JSON.stringify(key)}${meant}${keys.length === 0 ? '' : `; accepted here: ${keys.join(', ')}`}`
}

/** Variables are written in capitals, names in the file are not: `SLUICE_UPSTREAMS__CENTRAL__WINDOW` means `central`. */
function existingName(holder: Record<string, unknown>, word: string): string {
  return Object.keys(holder).find(key => key.toLowerCase() === word.toLowerCase()) ?? word
}

/** Never through a setter: the key may be `__proto__`. */
function define(holder: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, writable: true, enumerable: true, configurable: true })
}

function nowhere(origin: string): { origin: string; line: null; column: null } {
  return { origin, line: null, column: null }
}

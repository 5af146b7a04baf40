import { readFile } from 'node:fs/promises'
import type { LineCounter, Node, Scalar } from 'yaml'
import { BrokerError } from '../model/error.ts'
import { type ConfigProblem, formatProblems, type Position } from './problem.ts'

/** A YAML file read: its values, and where in the text each of them stands. */
export interface ConfigFile {
  readonly values: unknown
  readonly problems: readonly ConfigProblem[]
  /** Where the value (or, with `key`, the key) of a path stands; the nearest enclosing place if the path itself is not in the file. */
  locate(path: readonly PropertyKey[], what: 'key' | 'value'): Position
}

/**
 * Reads a YAML file and puts in variables of the environment for `${NAME}`; `$${` stands for a plain `${`. Rejects with CONFIG_NOT_FOUND if it
 * can't be read and CONFIG_INVALID if it is not YAML. The parser is loaded here and only here: a gateway without a file never pays for it.
 * `whenMissing` makes a sentence of the reason why it can't be read.
 */
export async function readConfigFile(
  file: string,
  env: Readonly<Record<string, string | undefined>>,
  whenMissing = (reason: string) =>
    `The configuration ${file} can't be read: ${reason}. Name another with --config FILE.`,
): Promise<ConfigFile> {
  const text = await readText(file, whenMissing)
  const yaml = await import('yaml')
  const lines = new yaml.LineCounter()
  const document = yaml.parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    // It would compare each key with each other one: seconds for a large file. See Map below.
    uniqueKeys: false,
  })
  // A warning is a tag nobody knows: the value would silently be something else than it looks.
  const faults = [...document.errors, ...document.warnings].map(fault => ({
    ...position(file, lines, fault.pos[0]),
    path: '',
    message: `this is not YAML: ${fault.message}`,
  }))
  if (faults.length > 0) throw new BrokerError('CONFIG_INVALID', formatProblems(file, faults))

  const problems: ConfigProblem[] = []
  yaml.visit(document, {
    Map(_, map) {
      const seen = new Set<unknown>()
      for (const { key } of map.items) {
        if (!yaml.isScalar(key)) continue
        if (seen.has(key.value)) {
          const message = `${JSON.stringify(key.value)} is given twice`
          problems.push({ ...position(file, lines, start(key)), path: '', message })
        }
        seen.add(key.value)
      }
    },
    Pair(_, pair) {
      // zod skips this key silently, as assigning it would change the object's prototype.
      if (yaml.isScalar(pair.key) && pair.key.value === '__proto__') {
        problems.push({
          ...position(file, lines, start(pair.key)),
          path: '__proto__',
          message: 'unknown key "__proto__"',
        })
      }
    },
    Scalar(key, scalar) {
      if (key === 'key' || typeof scalar.value !== 'string') return
      scalar.value = substitute(scalar.value, env, variable => {
        problems.push({
          ...position(file, lines, start(scalar)),
          path: '',
          message: `the environment has no variable ${variable}; set it, or write $\${${variable}} for the plain text`,
        })
      })
    },
  })
  return {
    values: toValues(document, file),
    problems,
    locate: (path, what) => {
      let node: unknown = document.contents
      let at = start(node as Node | null)
      for (const [depth, key] of path.entries()) {
        if (yaml.isMap(node)) {
          const pair = node.items.find(item => yaml.isScalar(item.key) && item.key.value === key)
          if (pair === undefined) break
          const isLast = depth === path.length - 1
          node = pair.value
          at = isLast && what === 'value' && yaml.isNode(node) ? start(node) : start(pair.key as Scalar)
        } else if (yaml.isSeq(node) && typeof key === 'number') {
          node = node.items[key]
          at = start(node as Node | null)
        } else break
      }
      return position(file, lines, at)
    },
  }
}

async function readText(file: string, whenMissing: (reason: string) => string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new BrokerError('CONFIG_NOT_FOUND', whenMissing(reason), { cause, facts: { file } })
  }
}

function toValues(document: { toJS(): unknown }, file: string): unknown {
  try {
    return document.toJS()
  } catch (cause) {
    // Aliases that multiply without end.
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new BrokerError('CONFIG_INVALID', `${file}: ${reason}`, { cause })
  }
}

function substitute(
  text: string,
  env: Readonly<Record<string, string | undefined>>,
  missing: (variable: string) => void,
): string {
  return text.replaceAll(/(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (whole, doubled: string, variable: string) => {
    if (doubled !== '') return whole.slice(1)
    const value = env[variable]
    if (value === undefined) missing(variable)
    return value ?? whole
  })
}

function start(node: Node | Scalar | null): number {
  return node?.range?.[0] ?? 0
}

function position(file: string, lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset)
  // An empty file has no lines to count.
  return { origin: file, line: Math.max(line, 1), column: Math.max(col, 1) }
}

import { existsSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import * as z from 'zod/mini'
import { BrokerError } from '../model/error.ts'
import { type Conflict, findConflicts, findWarnings } from './checks.ts'
import { type ConfigFile, readConfigFile } from './file.ts'
import { nearestWord } from './nearest.ts'
import { applyOverride, readOverrides, unknownKey } from './overrides.ts'
import { type ConfigProblem, formatProblems, type Position } from './problem.ts'
import { type Config, configSchema, tlsOf } from './schema.ts'
import { maskedValue, nodeAt, type OptionNode, pathText, plainValue, readTree, showSection } from './tree.ts'
import { readUpstreamUrl } from './upstream-url.ts'

export interface ConfigSources {
  /** YAML file; null: defaults and overrides alone. */
  readonly file: string | null
  readonly env: Readonly<Record<string, string | undefined>>
  /** `KEY.KEY=VALUE` each. */
  readonly set: readonly string[]
}

/** Taken by `run` and `check` when no file is named. */
const DEFAULT_FILE = 'sluice.yaml'

/** `./sluice.yaml` if there is one. */
export function findConfigFile(): string | null {
  return existsSync(DEFAULT_FILE) ? DEFAULT_FILE : null
}

/** The configuration, resolved. Rejects with CONFIG_NOT_FOUND, or with CONFIG_INVALID that lists every problem. */
export async function loadConfig(sources: ConfigSources): Promise<Config> {
  const found = await readConfig(sources)
  if (found.config !== null) return found.config
  throw new BrokerError('CONFIG_INVALID', formatProblems(sources.file ?? 'the configuration', found.problems), {
    facts: { problems: found.problems.length },
  })
}

/** The configuration, or all that is wrong with it. Rejects like `loadConfig` if the file can't be read or is not YAML. */
export async function readConfig({
  file,
  env,
  set,
}: ConfigSources): Promise<{ config: Config; problems: [] } | { config: null; problems: ConfigProblem[] }> {
  const source = file === null ? null : await readConfigFile(file, env)
  const tree = readTree(configSchema)
  const { overrides, problems } = readOverrides({ env, set })
  problems.unshift(...(source?.problems ?? []))

  const values = withoutNulls(source?.values ?? {})
  const origins = new Map<string, string>()
  if (isRecord(values)) {
    for (const override of overrides) {
      const problem = applyOverride(tree, values, override)
      if (problem === null) origins.set(pathText(override.path), override.origin)
      else problems.push(problem)
    }
  }
  const locate = (path: readonly PropertyKey[], what: 'key' | 'value') => locateIn({ source, origins, path, what })
  const filled = readFiles(tree, values, {
    folder: file === null ? '.' : dirname(file),
    report: (path, message) => problems.push({ ...locate(path, 'value'), path: pathText(path), message }),
  })

  const parsed = z.safeParse(configSchema, filled, { reportInput: true })
  if (!parsed.success) {
    for (const issue of parsed.error.issues) problems.push(...describeIssue(tree, issue, locate))
    return { config: null, problems: sortProblems(problems) }
  }
  const files = await examineFiles(parsed.data)
  for (const { path, message } of [...findConflicts(parsed.data), ...files.conflicts]) {
    problems.push({ ...locate(path, 'value'), path: pathText(path), message })
  }
  if (problems.length > 0) return { config: null, problems: sortProblems(problems) }
  const { anonymous } = parsed.data.auth
  const config = {
    ...parsed.data,
    // Made when it is asked for, which is seldom.
    get effective() {
      const shown = showSection(tree, filled, maskedValue)
      return { ...shown, auth: { ...(shown.auth as object), allow_anonymous: anonymous !== 'nobody' } }
    },
    get options() {
      return showSection(tree, filled, plainValue)
    },
    warnings: [...findWarnings(parsed.data), ...files.warnings],
  }
  return { config, problems: [] }
}

interface Findings {
  readonly conflicts: readonly Conflict[]
  readonly warnings: readonly string[]
}

const NO_FILES: Findings = { conflicts: [], warnings: [] }

/** What is to be said of the files the configuration names. */
async function examineFiles({ listeners, upstreams }: z.output<typeof configSchema>): Promise<Findings> {
  const listening = tlsOf(listeners)
  const withFiles = upstreams.filter(({ tls: { ca, cert, key } }) => ca !== null || (cert !== null && key !== null))
  if (listening.length === 0 && withFiles.length === 0) return NO_FILES
  const { readTlsFiles, readUpstreamTls, tlsWarnings } = await import('./tls-files.ts')
  const conflicts: Conflict[] = []
  const warnings: string[] = []
  const examine = (section: readonly string[], look: () => void): void => {
    try {
      look()
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      conflicts.push({ path: [...section, 'tls', String(error.facts.option)], message: error.message })
    }
  }
  for (const { name, tls } of listening) {
    examine(['listeners', name], () => {
      warnings.push(...tlsWarnings(`listeners.${name}`, tls, readTlsFiles(tls), Date.now()))
    })
  }
  for (const { name, tls } of withFiles) examine(['upstreams', name], () => readUpstreamTls(tls))
  return { conflicts, warnings }
}

/** What zod found, as problems with places and words of the option concerned. */
export function describeIssue(
  tree: OptionNode,
  issue: z.core.$ZodIssue,
  locate: (path: readonly PropertyKey[], what: 'key' | 'value') => Position,
): ConfigProblem[] {
  const { path } = issue
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => ({
      ...locate([...path, key], 'key'),
      path: pathText([...path, key]),
      message: unknownKey(nodeAt(tree, path), key),
    }))
  }
  if (issue.code === 'invalid_key') {
    const message = issue.issues.map(inner => inner.message).join('; ')
    return [{ ...locate(path, 'key'), path: pathText(path), message }]
  }
  return [{ ...locate(path, 'value'), path: pathText(path), message: describeValue(nodeAt(tree, path), issue) }]
}

function describeValue(node: OptionNode | undefined, issue: z.core.$ZodIssue): string {
  const accepts = node?.about?.accepts ?? 'a section of keys'
  const given = issue.input
  if (given === undefined) return `this is missing; accepted is ${accepts}`
  // Texts of our own parsers; some say what is accepted themselves.
  if (issue.code === 'custom')
    return issue.message.includes('; accepted') ? issue.message : `${issue.message}; accepted is ${accepts}`
  if (node?.kind === 'value' && node.about.secrecy === 'public') {
    const nearest =
      typeof given === 'string' && issue.code === 'invalid_value' ? nearestWord(given, issue.values.map(String)) : null
    const meant = nearest === null ? '' : ` (did you mean "${nearest}"?)`
    return `${shorten(given)} is not accepted${meant}; accepted is ${accepts}`
  }
  return `a ${kindWord(given)} is not accepted here; accepted is ${accepts}`
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

function kindWord(value: unknown): string {
  if (Array.isArray(value)) return `list of ${value.length}`
  return typeof value === 'object' ? 'section' : typeof value
}

function locateIn({
  source,
  origins,
  path,
  what,
}: {
  source: ConfigFile | null
  origins: ReadonlyMap<string, string>
  path: readonly PropertyKey[]
  what: 'key' | 'value'
}): Position {
  // An override may set a whole list or a key of the section a problem is reported for.
  const text = pathText(path)
  for (const [overridden, origin] of origins) {
    if (
      overridden.toLowerCase() === text.toLowerCase() ||
      text.toLowerCase().startsWith(`${overridden.toLowerCase()}.`)
    ) {
      return { origin, line: null, column: null }
    }
  }
  return source?.locate(path, what) ?? { origin: 'the configuration', line: null, column: null }
}

/** Replaces `file:PATH` by the first line of that file, for options that hold secrets, and paths of files, those of URLs included, by absolute ones. Paths start at the folder of the configuration. */
function readFiles(
  node: OptionNode,
  value: unknown,
  context: { folder: string; report: (path: readonly PropertyKey[], message: string) => void },
  path: readonly PropertyKey[] = [],
): unknown {
  if (Array.isArray(value)) {
    const each = node.kind === 'sections' ? node.each : node
    return value.map((item, index) => readFiles(each, item, context, [...path, index]))
  }
  if (isRecord(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => {
        const child = nodeAt(node, [key])
        return [key, child === undefined ? inner : readFiles(child, inner, context, [...path, key])]
      }),
    )
  }
  if (node.kind === 'value' && node.about.type === 'file' && typeof value === 'string') {
    return value === '' ? value : resolve(context.folder, value)
  }
  const isSecret = (node.kind === 'list' || node.kind === 'value') && node.about.secrecy !== 'public'
  if (!isSecret || typeof value !== 'string' || !value.startsWith('file:')) return value
  const file = resolve(context.folder, value.slice('file:'.length))
  try {
    if (node.about.secrecy === 'url') {
      // Read again for each attempt to connect: it stays a reference.
      readUpstreamUrl(`file:${file}`)
      return `file:${file}`
    }
    return (readFileSync(file, 'utf8').split('\n', 1)[0] ?? '').trim()
  } catch (error) {
    context.report(path, `the secret can't be read: ${error instanceof Error ? error.message : String(error)}`)
    return value
  }
}

/** A key with nothing behind it counts as not given. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (!isRecord(value)) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([key, inner]) => [key, withoutNulls(inner)]),
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** In the order of the file. */
export function sortProblems(problems: readonly ConfigProblem[]): ConfigProblem[] {
  return problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0))
}

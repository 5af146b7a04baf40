/*
 * Writes the tables of docs/protocols.md: each normative statement of MQTT 5.0 and 3.1.1 with the files that satisfy it and the tests that show it,
 * found by the tags in them: `[MQTT-3.1.2-24]` is a statement of 5.0, `3.1.1 [MQTT-3.1.2-23], [MQTT-3.1.2-24]` are two of 3.1.1. What stands above the tables is
 * kept.
 *
 * Behind them stands where other brokers do otherwise, from the data of the differential test.
 *
 *   node scripts/protocols-docs.ts            write them
 *   node scripts/protocols-docs.ts --check    fail if the document differs from what would be written
 *
 * Both fail on a tag that names no statement, and on a statement that binds the server and is not satisfied or not shown.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DIFFERENCES, type Difference, TRANSCRIPTS } from '../test/integration/differential-transcripts.ts'
import { STATEMENTS_311 } from './conformance/mqtt-3.1.1.ts'
import { STATEMENTS_5 } from './conformance/mqtt-5.0.ts'
import type { Side, Statement } from './conformance/statement.ts'
import { readFiles, type SourceFiles } from './imports.ts'

const DOCUMENT = 'docs/protocols.md'
/** Everything from this line on is written. */
const TABLES = '<!-- Written by scripts/protocols-docs.ts (npm run docs), from the tags in src/ and test/. -->'

/** Its tests write tags that say nothing. */
const OWN_TEST = 'test/unit/scripts/protocols-docs.test.ts'
/** A client of ours shows nothing about the server. */
const OF_CLIENTS = /^(?:src\/cli|test\/unit\/cli)\//

export interface Standard {
  readonly version: '5.0' | '3.1.1'
  readonly statements: readonly Statement[]
}

export const STANDARDS: readonly Standard[] = [
  { version: '5.0', statements: STATEMENTS_5 },
  { version: '3.1.1', statements: STATEMENTS_311 },
]

/** A tag in a file, as `5.0 3.1.2-24`. */
export interface Tag {
  readonly path: string
  readonly line: number
  readonly key: string
}

/** What is known of one statement. */
interface Evidence {
  readonly statement: Statement
  /** Files, sorted. */
  readonly code: readonly string[]
  readonly tests: readonly string[]
}

const keyOf = (version: string, id: string): string => `${version} ${id}`

/** All tags, in the order of files and lines. */
export function readTags(files: SourceFiles): Tag[] {
  const tags: Tag[] = []
  for (const [path, text] of files) {
    for (const [index, line] of text.split('\n').entries()) {
      for (const { groups = {} } of line.matchAll(
        /(?<old>3\.1\.1 )?(?<list>\[MQTT-[\d.-]+\](?:, \[MQTT-[\d.-]+\])*)/g,
      )) {
        const version = groups.old === undefined ? '5.0' : '3.1.1'
        for (const [, id = ''] of (groups.list ?? '').matchAll(/\[MQTT-([\d.-]+)\]/g)) {
          tags.push({ path, line: index + 1, key: keyOf(version, id) })
        }
      }
    }
  }
  return tags
}

/** Tags of statements that neither standard has. */
export function unknownTags(tags: readonly Tag[]): Tag[] {
  const known = new Set(STANDARDS.flatMap(({ version, statements }) => statements.map(({ id }) => keyOf(version, id))))
  return tags.filter(({ key }) => !known.has(key))
}

/** The statements of a standard with what satisfies and shows them. */
export function evidenceOf({ version, statements }: Standard, tags: readonly Tag[]): Evidence[] {
  const files = (folder: string, { id, like }: Statement): string[] => {
    const keys = [keyOf(version, id), ...(like === null ? [] : [keyOf('5.0', like)])]
    const found = tags.filter(
      ({ path, key }) => path.startsWith(folder) && !OF_CLIENTS.test(path) && keys.includes(key),
    )
    return [...new Set(found.map(({ path }) => path.slice(folder.length)))].sort()
  }
  return statements.map(statement => ({
    statement,
    code: files('src/', statement),
    tests: files('test/', statement),
  }))
}

const isOurs = ({ statement: { side, moot } }: Evidence): boolean => side !== 'client' && moot === null
const isShown = ({ code, tests }: Evidence): boolean => code.length > 0 && tests.length > 0

/** The statements that a server must satisfy and that no code or no test names. */
export function notShown(evidence: readonly Evidence[]): Evidence[] {
  return evidence.filter(each => isOurs(each) && !isShown(each))
}

/** The written part of the document. */
export function renderTables(tags: readonly Tag[]): string {
  const standards = STANDARDS.map(standard => ({ ...standard, evidence: evidenceOf(standard, tags) }))
  const totals = standards.map(({ version, evidence }) => {
    const ours = evidence.filter(isOurs)
    const clients = evidence.filter(({ statement }) => statement.side === 'client').length
    const moot = evidence.length - ours.length - clients
    return `| ${version} | ${evidence.length} | ${clients} | ${moot} | ${ours.length} |`
  })
  const sections = standards.flatMap(({ version, evidence }) => [
    `## MQTT ${version}, statement by statement`,
    [
      '| statement | binds | asks | satisfied in | shown by |',
      '|---|---|---|---|---|',
      ...evidence.map(renderRow),
    ].join('\n'),
  ])
  return `${[
    TABLES,
    '## Totals',
    [
      '| standard | normative statements | bind clients only | speak of what never arises here | bind this server, satisfied and shown |',
      '|---|---|---|---|---|',
      ...totals,
    ].join('\n'),
    'Files are below `src/` and `test/`. What 3.1.1 asks for in the words of 5.0 is satisfied and shown where that is.',
    ...sections,
    '## Where mosquitto 2.0 and aedes 1.2 do otherwise',
    `Of ${TRANSCRIPTS.length} conversations in bytes, good and malformed, played with all three; aedes speaks 3.1 and 3.1.1 only. What brokers may choose freely is not compared: their packet identifiers, the properties of CONNACK, whether 5.0 is told why it is closed, and 0x10 for a message nobody has subscribed to.`,
    [
      '| broker | version | a client that | does | clause |',
      '|---|---|---|---|---|',
      ...DIFFERENCES.map(renderDifference),
    ].join('\n'),
  ].join('\n\n')}\n`
}

function renderDifference({ peer, versions, names, does, because }: Difference): string {
  return `| ${peer} | ${versions.join(', ')} | ${cell(names.join('; '))} | ${cell(does)} | ${cell(because)} |`
}

const SIDES: Record<Side, string> = {
  server: 'server',
  both: 'both',
  checked: 'client; the server checks',
  client: 'client',
}

function renderRow({ statement: { id, side, summary, moot }, code, tests }: Evidence): string {
  const shown = moot === null ? `${list(code)} | ${list(tests)}` : `does not arise: ${moot} |`
  return `| MQTT-${id} | ${SIDES[side]} | ${cell(summary)} | ${side === 'client' ? ' | ' : shown} |`
}

const cell = (text: string): string => text.replaceAll('|', '\\|')

const list = (files: readonly string[]): string => files.map(file => file.replace(/\.test\.ts$|\.ts$/, '')).join(', ')

if (import.meta.main) {
  const root = join(import.meta.dirname, '..')
  const path = join(root, DOCUMENT)
  const files = new Map([...readFiles(root, ['src', 'scripts', 'test'], '.ts'), ...readFiles(root, ['docs'], '.md')])
  for (const name of [DOCUMENT, OWN_TEST]) files.delete(name)
  const tags = readTags(files)
  const faults = unknownTags(tags).map(
    ({ path: file, line, key }) => `${file}:${line}: there is no statement ${key}; see scripts/conformance/`,
  )
  for (const standard of STANDARDS) {
    for (const { statement, code } of notShown(evidenceOf(standard, tags))) {
      const lacks = code.length === 0 ? 'line in src/' : 'test'
      faults.push(`${standard.version} [MQTT-${statement.id}] names no ${lacks}: ${statement.summary}`)
    }
  }
  const written = readFileSync(path, 'utf8')
  const text = `${(written.split(TABLES)[0] ?? '').trimEnd()}\n\n${renderTables(tags)}`
  const isCheck = process.argv.includes('--check')
  if (isCheck && written !== text)
    faults.push(`${DOCUMENT} is not what the tags say: run \`npm run docs\` and commit it`)
  for (const fault of faults) console.error(fault)
  if (!isCheck) writeFileSync(path, text)
  if (faults.length > 0) process.exitCode = 1
  else console.log(`protocols docs: ${tags.length} tags, ${isCheck ? 'up to date' : 'written'}`)
}

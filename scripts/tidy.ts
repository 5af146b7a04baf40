/*
 * What a reader would stumble over: leftover markers, exports nobody uses, files nobody loads, links in documents that lead nowhere.
 *
 *   node scripts/tidy.ts
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { readFiles, readImports, type SourceFiles } from './imports.ts'

export interface Finding {
  readonly path: string
  readonly line: number
  readonly message: string
}

/** Written apart so that this file does not find itself. */
const MARKERS = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'].join('|')})\\b`)

/** Files that are started, not imported. */
const ENTRIES = [
  /^src\/(?:main|executable)\.ts$/,
  /^scripts\/[^/]+\.ts$/,
  /^scripts\/bench\/[^/]+\.ts$/,
  /^firmware-sim\/run\.ts$/,
  /\.test\.ts$/,
  /^[^/]+\.config\.ts$/,
]

/** Markers left behind in code or documents. An issue or a decision note says the same to more people. */
export function findMarkers(files: SourceFiles): Finding[] {
  return eachLine(files, (line, at) => {
    const marker = MARKERS.exec(line)?.[0]
    return marker === undefined ? [] : [{ ...at, message: `a leftover ${marker}: do it, delete it, or open an issue` }]
  })
}

/** Exported values that no other file names, and exported types that neither another file nor their own uses. */
export function findUnusedExports(files: SourceFiles): Finding[] {
  const users = usersOf(files)
  const declaration =
    /^export (?:declare )?(?:async )?(?:abstract )?(?<kind>function\*?|const|let|class|interface|type) (?<name>[\w$]+)/gm
  const findings: Finding[] = []
  for (const [path, text] of files) {
    // The tool that reads a configuration finds its export by itself.
    if (/\.config\.ts$/.test(path)) continue
    for (const match of text.matchAll(declaration)) {
      const { kind = '', name = '' } = match.groups ?? {}
      const word = new RegExp(`(?<![\\w$])${name.replaceAll('$', '\\$')}(?![\\w$])`, 'g')
      const isUsedElsewhere = (users.get(path) ?? []).some(user => files.get(user)?.match(word))
      // A type that only its own file names is part of the signature of something exported.
      const isUsedHere = (kind === 'interface' || kind === 'type') && (text.match(word)?.length ?? 0) > 1
      if (isUsedElsewhere || isUsedHere) continue
      const line = text.slice(0, match.index).split('\n').length
      findings.push({
        path,
        line,
        message: `${name} is exported and nobody imports it: delete it, or keep it to the file`,
      })
    }
  }
  return findings
}

/** Files that no entry point reaches. */
export function findDeadFiles(files: SourceFiles): Finding[] {
  const users = usersOf(files)
  const isReached = (path: string, seen: Set<string>): boolean => {
    if (ENTRIES.some(entry => entry.test(path))) return true
    seen.add(path)
    return (users.get(path) ?? []).some(user => !seen.has(user) && isReached(user, seen))
  }
  return [...files.keys()]
    .filter(path => !isReached(path, new Set()))
    .map(path => ({ path, line: 1, message: 'nothing reaches this file: delete it, or import it where it belongs' }))
}

/** Who uses each file: by importing it, or by naming it, as processes, workers and bundlers are given paths. */
function usersOf(files: SourceFiles): Map<string, string[]> {
  const users = new Map<string, string[]>()
  const note = (path: string, user: string) => users.set(path, [...(users.get(path) ?? []), user])
  for (const [path, text] of files) {
    const targets = new Set(readImports(path, text).map(({ target }) => target))
    for (const other of files.keys()) {
      if (other === path) continue
      if (targets.has(other) || text.includes(`${basename(dirname(other))}/${basename(other)}`)) note(other, path)
    }
  }
  return users
}

/** Links and file names in Markdown that lead nowhere. `exists` takes a path from the project's root. */
export function findStaleLinks(documents: SourceFiles, exists: (path: string) => boolean): Finding[] {
  return eachLine(documents, (line, at) => {
    const targets = [...line.matchAll(/\]\((?!\w+:|#)([^)\s#]+)[^)]*\)/g)].map(match =>
      normalize(join(dirname(at.path), match[1] ?? '')),
    )
    const named = [...line.matchAll(/`((?:src|scripts|test|docs|firmware-sim|examples)\/[\w./-]+\.\w+)`/g)].map(
      match => match[1] ?? '',
    )
    return [...targets, ...named]
      .filter(target => !exists(target))
      .map(target => ({ ...at, message: `${target} does not exist` }))
  })
}

function eachLine(
  files: SourceFiles,
  look: (line: string, at: { path: string; line: number }) => Finding[],
): Finding[] {
  return [...files].flatMap(([path, text]) =>
    text.split('\n').flatMap((line, index) => look(line, { path, line: index + 1 })),
  )
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '..')
  const sources = readFiles(root, ['src', 'scripts', 'test', 'firmware-sim'], '.ts')
  const documents = new Map(readFiles(root, ['docs', 'scripts', 'test', 'firmware-sim', 'examples'], '.md'))
  for (const name of readdirSync(root))
    if (name.endsWith('.md')) documents.set(name, readFileSync(join(root, name), 'utf8'))
  const findings = [
    ...findMarkers(new Map([...sources, ...documents])),
    ...findUnusedExports(sources),
    ...findDeadFiles(sources),
    ...findStaleLinks(documents, path => existsSync(join(root, path))),
  ]
  for (const { path, line, message } of findings) console.error(`${path}:${line}: ${message}`)
  if (findings.length === 0) console.log(`tidy: nothing left lying about in ${sources.size + documents.size} files`)
  process.exitCode = findings.length === 0 ? 0 : 1
}

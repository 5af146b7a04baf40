/*
 * What each source file imports, found in its text. Enough for code in this project's form: statements begin their line, specifiers are plain strings.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'

export interface Import {
  /** From 1. */
  readonly line: number
  /** As written. */
  readonly specifier: string
  /** Path of the file from the project's root; null for packages and `node:` modules. */
  readonly target: string | null
  /** Erased at run time. */
  readonly isTypeOnly: boolean
  /** `export … from` passes on what another file defines. */
  readonly isReexport: boolean
  /** `import(…)`: loaded when needed. */
  readonly isLazy: boolean
}

/** Text of each file by its path from the project's root. */
export type SourceFiles = ReadonlyMap<string, string>

/** Every file below the folders whose name ends so. */
export function readFiles(root: string, folders: readonly string[], ending: string): SourceFiles {
  const files = new Map<string, string>()
  for (const folder of folders) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith(ending) || entry.parentPath.includes('node_modules')) continue
      const path = join(entry.parentPath, entry.name)
      files.set(normalize(path.slice(root.length + 1)), readFileSync(path, 'utf8'))
    }
  }
  return files
}

/** The imports of one file, in order. */
export function readImports(path: string, text: string): Import[] {
  const statement =
    /^(?<keyword>import|export)\s+(?<type>type\s+)?(?:(?<what>[\w*{][^'"`;=()]*?)\s+from\s+)?['"](?<static>[^'"\n]+)['"]|\bimport\(\s*['"](?<lazy>[^'"\n]+)['"]\s*\)/gm
  const imports: Import[] = []
  for (const match of text.matchAll(statement)) {
    const { keyword, type, what = '', static: from, lazy } = match.groups ?? {}
    const specifier = from ?? lazy ?? ''
    const names = /^\{([^}]*)\}$/
      .exec(what.trim())?.[1]
      ?.split(',')
      .map(name => name.trim())
      .filter(name => name !== '')
    imports.push({
      line: text.slice(0, match.index).split('\n').length,
      specifier,
      target: specifier.startsWith('.') ? normalize(join(dirname(path), specifier)) : null,
      isTypeOnly:
        type !== undefined ||
        (names !== undefined && names.length > 0 && names.every(name => name.startsWith('type '))),
      isReexport: keyword === 'export',
      isLazy: lazy !== undefined,
    })
  }
  return imports
}

import { isDeepStrictEqual } from 'node:util'

/** Sections within sections, and values: a configuration in the file's own keys. */
export type Options = Readonly<Record<string, unknown>>

/** Where two configurations differ, as dotted paths; a list is one value, and so is a named section that only one of them has. */
export function differences(before: Options, after: Options, path = ''): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)])
  return [...keys].flatMap(key => {
    const [left, right] = [before[key], after[key]]
    const name = path === '' ? key : `${path}.${key}`
    if (isSection(left) && isSection(right)) return differences(left, right, name)
    return isDeepStrictEqual(left, right) ? [] : [name]
  })
}

/** `before`, with what `after` has at these paths. */
export function withChanges(before: Options, after: Options, paths: readonly string[]): Options {
  return paths.reduce((options, path) => withChange(options, after, path.split('.')), before)
}

function withChange(before: Options, after: Options, [key = '', ...rest]: readonly string[]): Options {
  const [inner, wanted] = [before[key], after[key]]
  const isDeeper = rest.length > 0 && isSection(inner) && isSection(wanted)
  return { ...before, [key]: isDeeper ? withChange(inner, wanted, rest) : wanted }
}

const isSection = (value: unknown): value is Options =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

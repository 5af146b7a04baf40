/*
 * The schema as a tree of options, for everything that needs to know which keys there are: errors, overrides, the shown configuration,
 * the generated documentation.
 */
import type * as z from 'zod/mini'
import { type About, abouts } from './option.ts'

export type OptionNode =
  /** Fixed keys. */
  | {
      readonly kind: 'group'
      readonly about: About | null
      readonly keys: ReadonlyMap<string, OptionNode>
      /** May be left out, and then there is nothing of what it is about. */
      readonly isOptional: boolean
    }
  /** Keys are names the operator chooses. */
  | { readonly kind: 'named'; readonly about: About; readonly each: OptionNode }
  | { readonly kind: 'list'; readonly about: About }
  /** Sections in an order that matters. */
  | { readonly kind: 'sections'; readonly about: About; readonly each: OptionNode }
  | {
      readonly kind: 'value'
      readonly about: About
      readonly fallback: string | number | boolean | null
      readonly isRequired: boolean
    }

/** Reads the tree out of a schema. A value without a description is a mistake in the schema. */
export function readTree(schema: z.core.$ZodType): OptionNode {
  const about = abouts.get(schema) ?? null
  const { inner, fallback, isOptional } = unwrap(schema)
  const { def } = inner._zod
  if (def.type === 'object') {
    const { shape } = def as z.core.$ZodObjectDef
    const keys = new Map(Object.entries(shape).map(([key, value]) => [key, readTree(value)]))
    return { kind: 'group', about, keys, isOptional }
  }
  if (about === null) throw new TypeError('an option without a description in config/schema.ts')
  if (def.type === 'record') return { kind: 'named', about, each: readTree((def as z.core.$ZodRecordDef).valueType) }
  if (def.type === 'array') {
    const each = (def as z.core.$ZodArrayDef).element
    return unwrap(each).inner._zod.def.type === 'object'
      ? { kind: 'sections', about, each: readTree(each) }
      : { kind: 'list', about }
  }
  return { kind: 'value', about, fallback: readFallback(fallback), isRequired: fallback === undefined && !isOptional }
}

/** The node a path leads to; undefined where there is none. An index of a list leads to the list itself, one of a list of sections to its section. */
export function nodeAt(root: OptionNode, path: readonly PropertyKey[]): OptionNode | undefined {
  let node: OptionNode | undefined = root
  for (const key of path) {
    if (node === undefined || node.kind === 'list') return node
    switch (node.kind) {
      case 'group':
        node = node.keys.get(String(key))
        break
      case 'named':
        node = node.each
        break
      case 'sections':
        node = typeof key === 'number' ? node.each : undefined
        break
      default:
        node = undefined
    }
  }
  return node
}

/** `sluice.yaml` keys joined as an operator writes them: `routes.telemetry.from.0`. */
export function pathText(path: readonly PropertyKey[]): string {
  return path.map(String).join('.')
}

type Show = (about: About, value: unknown) => unknown

/** A section as the file could say it in full: given values as they are, defaults filled in, passwords masked by `show`. `raw` has passed the schema. */
export function showSection(node: OptionNode, raw: unknown, show: Show): Record<string, unknown> {
  const given = asRecord(raw)
  if (node.kind === 'group') {
    return Object.fromEntries([...node.keys].map(([key, child]) => [key, showNode(child, given[key], show)]))
  }
  if (node.kind === 'named') {
    return Object.fromEntries(Object.entries(given).map(([key, value]) => [key, showNode(node.each, value, show)]))
  }
  throw new TypeError('a single value is not a section')
}

function showNode(node: OptionNode, raw: unknown, show: Show): unknown {
  if (node.kind === 'value') return show(node.about, raw ?? node.fallback)
  if (node.kind === 'group' && node.isOptional && raw === undefined) return null
  if (node.kind === 'list') return Array.isArray(raw) ? raw.map(item => show(node.about, item)) : []
  if (node.kind === 'sections') return Array.isArray(raw) ? raw.map(item => showSection(node.each, item, show)) : []
  return showSection(node, raw, show)
}

/** As it is, secrets included. */
export function plainValue(about: About, value: unknown): unknown {
  // Overrides and `${NAME}` give text where the file would have a number or a word of YAML.
  if (about.type === 'number' && typeof value === 'string') return Number(value)
  if (about.type === 'true or false' && typeof value === 'string') return value === 'true'
  return value
}

export function maskedValue(about: About, given: unknown): unknown {
  const value = plainValue(about, given)
  if (about.secrecy === 'public' || typeof value !== 'string') return value
  const url = URL.parse(value)
  if (url === null) return '***'
  if (url.password !== '') url.password = '***'
  return url.href
}

function unwrap(schema: z.core.$ZodType): { inner: z.core.$ZodType; fallback: unknown; isOptional: boolean } {
  const { def } = schema._zod
  switch (def.type) {
    case 'prefault': {
      const { innerType, defaultValue } = def as z.core.$ZodPrefaultDef
      return { ...unwrap(innerType), fallback: defaultValue }
    }
    case 'optional':
      return { ...unwrap((def as z.core.$ZodOptionalDef).innerType), isOptional: true }
    case 'pipe':
      return unwrap((def as z.core.$ZodPipeDef).in)
    default:
      return { inner: schema, fallback: undefined, isOptional: false }
  }
}

function readFallback(fallback: unknown): string | number | boolean | null {
  return typeof fallback === 'string' || typeof fallback === 'number' || typeof fallback === 'boolean' ? fallback : null
}

function asRecord(raw: unknown): Readonly<Record<string, unknown>> {
  return typeof raw === 'object' && raw !== null ? (raw as Record<string, unknown>) : {}
}

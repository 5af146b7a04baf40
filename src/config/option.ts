/*
 * The kinds of value an option can have and what is known of each option besides its value. A kind is a zod schema that takes what YAML,
 * an environment variable or `--set` can hold (so `1883` and `"1883"` alike) and gives the value the program works with.
 */
import * as z from 'zod/mini'
import { BrokerError } from '../model/error.ts'
import { DURATION_FORM, formatDuration, formatSize, parseDuration, parseSize, SIZE_FORM } from '../model/quantity.ts'

/** What is known of an option; the source of docs/configuration.md, the JSON Schema and the texts of errors. */
export interface About {
  readonly help: string
  /** Kind of value in one word, for tables. */
  readonly type: string
  /** What is accepted, to follow "accepted is …". */
  readonly accepts: string
  /** Version that introduced it. */
  readonly since: string
  /** How it is shown: as it is, without passwords in URLs, never. */
  readonly secrecy: 'public' | 'url' | 'secret'
  /** What happens without it, where that is not a plain default. */
  readonly absent: string | null
}

/** The registry that ties each option's schema to what is known of it. */
export const abouts = z.registry<About>()

export interface Kind<T extends z.ZodMiniType> {
  readonly schema: T
  readonly type: string
  readonly accepts: string
  readonly secrecy: About['secrecy']
}

interface Extra {
  readonly since?: string
  readonly absent?: string
}

/** An option with a default, written as the operator would write it. */
export function setting<T extends z.ZodMiniType>(
  kind: Kind<T>,
  fallback: z.input<T> & (string | number | boolean),
  help: string,
  extra: Extra = {},
): z.ZodMiniPrefault<T> {
  return describe(z.prefault(kind.schema, fallback), kind, help, extra)
}

/** An option that must be given. */
export function required<T extends z.ZodMiniType>(kind: Kind<T>, help: string, extra: Extra = {}): T {
  return describe(z.clone(kind.schema), kind, help, extra)
}

/** An option whose value is found otherwise when it is not given; `absent` says how. */
export function optional<T extends z.ZodMiniType>(
  kind: Kind<T>,
  help: string,
  extra: Extra & { absent: string },
): z.ZodMiniOptional<T> {
  return describe(z.optional(kind.schema), kind, help, extra)
}

/** A section whose keys all have defaults, so that it may be left out. */
export function section<T extends z.ZodMiniType>(schema: T, help: string): z.ZodMiniPrefault<T> {
  return describeGroup(z.prefault(schema, {} as z.input<T>), help)
}

/** A section without which there is nothing of what it is about. */
export function optionalSection<T extends z.ZodMiniType>(schema: T, help: string): z.ZodMiniOptional<T> {
  return describeGroup(z.optional(schema), help)
}

/** A section that must be given. */
export function requiredSection<T extends z.ZodMiniType>(schema: T, help: string): T {
  return describeGroup(schema, help)
}

/** A duration between two bounds, resolved to milliseconds. */
export function duration({ min, max }: { min: string; max: string }): Kind<z.ZodMiniType<number, string | number>> {
  const [least, most] = [parseDuration(min), parseDuration(max)]
  return kindOf('duration', `${DURATION_FORM}; ${min} to ${max}`, value => {
    const durationMs = parseDuration(String(value))
    if (durationMs >= least && durationMs <= most) return durationMs
    throw new RangeError(`${formatDuration(durationMs)} is out of bounds`)
  })
}

/** A number of bytes between two bounds. */
export function size({ min, max }: { min: string; max: string }): Kind<z.ZodMiniType<number, string | number>> {
  const [least, most] = [parseSize(min), parseSize(max)]
  return kindOf('size', `${SIZE_FORM}; ${min} to ${max}`, value => {
    const bytes = parseSize(String(value))
    if (bytes >= least && bytes <= most) return bytes
    throw new RangeError(`${formatSize(bytes)} is out of bounds`)
  })
}

/** A whole number between two bounds. */
export function count({ min, max }: { min: number; max: number }): Kind<z.ZodMiniType<number, string | number>> {
  return kindOf('number', `a whole number from ${min} to ${max}`, value => {
    const number = typeof value === 'number' ? value : /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
    if (Number.isInteger(number) && number >= min && number <= max) return number
    throw new RangeError(`${JSON.stringify(value)} is not such a number`)
  })
}

/** true or false. */
export const flag: Kind<z.ZodMiniType<boolean, boolean | string>> = {
  type: 'true or false',
  accepts: 'true or false',
  secrecy: 'public',
  schema: z.pipe(
    z.union([z.boolean(), z.enum(['true', 'false'])]),
    z.transform(value => value === true || value === 'true'),
  ),
}

/** One word of a few. */
export function oneOf<const W extends readonly string[]>(words: W): Kind<z.ZodMiniEnum<{ [K in W[number]]: K }>> {
  return { type: 'word', accepts: words.join(', '), secrecy: 'public', schema: z.enum(words) }
}

/** Any text that `parse` takes; it throws BrokerError or RangeError with the reason when it doesn't. */
export function text<T>(
  type: string,
  accepts: string,
  parse: (value: string) => T,
  secrecy: About['secrecy'] = 'public',
): Kind<z.ZodMiniType<T, string>> {
  return { type, accepts, secrecy, schema: z.pipe(z.string(), z.transform(attempt(parse))) }
}

/** A list of values of one kind. */
export function listOf<T>(
  item: Kind<z.ZodMiniType<T, string>>,
  { min, max }: { min: number; max: number },
): Kind<z.ZodMiniType<T[], string[]>> {
  const how = min === max ? `exactly ${min}` : `${min} to ${max}`
  return {
    type: `list (${item.type})`,
    accepts: `a list of ${how}, each ${item.accepts}`,
    secrecy: item.secrecy,
    schema: z.array(item.schema).check(z.minLength(min), z.maxLength(max)),
  }
}

/** A list of sections, whose order means something. */
export function sectionsOf<T extends z.ZodMiniType>(
  schema: T,
  { most, each }: { most: number; each: string },
): Kind<z.ZodMiniArray<T>> {
  return {
    type: 'list (section)',
    accepts: `a list of up to ${most}, each ${each}`,
    secrecy: 'public',
    schema: z.array(schema).check(z.maxLength(most)),
  }
}

function kindOf(
  type: string,
  accepts: string,
  parse: (value: string | number) => number,
): Kind<z.ZodMiniType<number, string | number>> {
  return {
    type,
    accepts,
    secrecy: 'public',
    schema: z.pipe(z.union([z.string(), z.number()]), z.transform(attempt(parse))),
  }
}

/** Turns a parser that throws its reason into a zod transform that reports it. */
function attempt<I, O>(parse: (value: I) => O): (value: I, context: z.core.ParsePayload) => O {
  return (value, context) => {
    try {
      return parse(value)
    } catch (error) {
      if (!(error instanceof BrokerError) && !(error instanceof RangeError)) throw error
      context.issues.push({ code: 'custom', message: error.message, input: value })
      return z.NEVER
    }
  }
}

function describe<S extends z.ZodMiniType>(
  schema: S,
  { type, accepts, secrecy }: Kind<z.ZodMiniType>,
  help: string,
  { since = '0.1.0', absent }: Extra,
): S {
  abouts.add(schema, { help, type, accepts, secrecy, since, absent: absent ?? null })
  return schema
}

function describeGroup<S extends z.ZodMiniType>(schema: S, help: string): S {
  abouts.add(schema, {
    help,
    type: 'section',
    accepts: 'a section of keys',
    secrecy: 'public',
    since: '0.1.0',
    absent: null,
  })
  return schema
}

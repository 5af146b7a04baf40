import { Script } from 'node:vm'
import { BUNDLE_NAME } from './assets.ts'

/** How the bundle gets at Node's own modules; there are no others. */
export type Require = (name: string) => unknown

/** What makes the bundle a function. On its first line, so that lines keep their numbers. */
export const BUNDLE_PREFIX = '(function (require, module) {'
export const BUNDLE_SUFFIX = '\n})'

/** Parts of Node that most starts never use, or only after the first client has its answer. Together they would take a start 10 ms. */
const LOADED_ON_USE: ReadonlySet<string> = new Set(['assert', 'crypto', 'tls'])

/** Passes on to `load`; for some of Node's modules as late as something of them is used, and not when the bundle asks for them. */
export function requireOnUse(load: Require): Require {
  return name => {
    if (!LOADED_ON_USE.has(name.replace(/^node:/, ''))) return load(name)
    return new Proxy(() => undefined, {
      get: (_, property) => Reflect.get(Object(load(name)), property),
      // `assert` is itself a function.
      apply: (_, receiver, args) => Reflect.apply(load(name) as () => unknown, receiver, args),
    })
  }
}

/**
 * Compiles the bundle, prefix and suffix included. `run` starts it. With the code cache of an earlier Script of the same text most of it is
 * compiled already; V8 ignores one that a different V8 or other flags made.
 */
export function compileBundle(
  text: string,
  codeCache: Uint8Array | null,
): { readonly script: Script; readonly run: (require: Require) => void } {
  const script = new Script(text, {
    filename: BUNDLE_NAME,
    ...(codeCache === null
      ? {}
      : { cachedData: Buffer.from(codeCache.buffer, codeCache.byteOffset, codeCache.byteLength) }),
  })
  return {
    script,
    run: require => {
      const start: (require: Require, module: { exports: unknown }) => void = script.runInThisContext()
      start(require, { exports: {} })
    },
  }
}

import { logKey, referencesKey } from './keys.ts'
import type { State } from './state.ts'
import type { StateChange } from './types.ts'

/** How often the shared bodies under one key of log/ are referred to, as an operation on state/: count (4 bytes, little-endian); 0 deletes the key. */
export function referencesChange(commit: number, part: number, count: number): StateChange {
  const key = referencesKey(commit, part)
  if (count === 0) return { key, value: null }
  const value = Buffer.alloc(4)
  value.writeUInt32LE(count)
  return { key, value }
}

/** Counts what one commit adds and drops; with the last reference the bodies can go. */
export class References {
  readonly #state: State
  readonly #sums = new Map<string, { readonly commit: number; readonly part: number; sum: number }>()

  constructor(state: State) {
    this.#state = state
  }

  add(commit: number, part: number, by: 1 | -1): void {
    const id = `${commit}/${part}`
    const known = this.#sums.get(id)
    if (known === undefined) this.#sums.set(id, { commit, part, sum: by })
    else known.sum += by
  }

  /** Appends the new counts to `changes`, and to `deletable` the keys of bodies nobody refers to any more. */
  async finish(changes: StateChange[], deletable: Buffer[]): Promise<void> {
    if (this.#sums.size === 0) return
    const sums = [...this.#sums.values()]
    const before = await this.#state.getMany(sums.map(({ commit, part }) => referencesKey(commit, part)))
    for (const [at, { commit, part, sum }] of sums.entries()) {
      const count = Math.max(0, (before[at]?.readUInt32LE(0) ?? 0) + sum)
      changes.push(referencesChange(commit, part, count))
      if (count === 0) deletable.push(logKey(commit, 0, part))
    }
  }
}

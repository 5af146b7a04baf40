import type { Store } from '../../src/store/store.ts'

/** Between the moment the `nth` read of segments has found what it found and the moment its reader is told, `happens` happens. */
export function afterRead(store: Store, nth: number, happens: () => Promise<void>): void {
  const segments = store.segments.bind(store)
  let reads = 0
  store.segments = async (queue, after, maxBytes) => {
    const found = await segments(queue, after, maxBytes)
    if (++reads === nth) await happens()
    return found
  }
}

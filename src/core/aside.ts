import type { SegmentRef } from '../store/types.ts'

/** A segment that is on disk only because all that is left of it waits. */
export interface Aside {
  readonly ref: SegmentRef
  readonly first: number
  readonly end: number
  /** Entries that are not done, and bytes of their records. */
  readonly live: number
  readonly bytes: number
  /** Entries that have been woken meanwhile. */
  ready: number
}

/** The segments of a lane that are aside, in order of position. There may be as many as messages wait: each is found by halving. */
export class AsideSegments implements Iterable<Aside> {
  readonly #segments: Aside[] = []
  /** Those of which something was woken. */
  readonly #woken = new Set<Aside>()
  /** Entries of all of them that have been woken. */
  ready = 0

  get count(): number {
    return this.#segments.length
  }

  [Symbol.iterator](): Iterator<Aside> {
    return this.#segments[Symbol.iterator]()
  }

  add(aside: Aside): void {
    this.#segments.splice(this.#indexFrom(aside.first), 0, aside)
  }

  /** False: it was not there any more. */
  remove(aside: Aside): boolean {
    const at = this.#indexFrom(aside.first)
    if (this.#segments[at] !== aside) return false
    this.#segments.splice(at, 1)
    this.#woken.delete(aside)
    this.ready -= aside.ready
    return true
  }

  /** The one that holds a position. */
  of(position: number): Aside | undefined {
    const aside = this.from(position)
    return aside !== undefined && aside.first <= position ? aside : undefined
  }

  /** The first one that does not end before a position. */
  from(position: number): Aside | undefined {
    return this.#segments[this.#indexFrom(position)]
  }

  #indexFrom(position: number): number {
    let low = 0
    let high = this.#segments.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#segments[middle]?.end ?? 0) > position) high = middle
      else low = middle + 1
    }
    return low
  }

  /** The one of which something was woken first. */
  woken(): Aside | undefined {
    const [first] = this.#woken
    return first
  }

  wake(aside: Aside): void {
    aside.ready++
    this.ready++
    this.#woken.add(aside)
  }

  clear(): void {
    this.#segments.length = 0
    this.#woken.clear()
    this.ready = 0
  }
}

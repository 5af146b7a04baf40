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

/** The segments of a lane that are aside, in order of position. */
export class AsideSegments implements Iterable<Aside> {
  readonly #segments: Aside[] = []
  /** Entries of all of them that have been woken. */
  ready = 0

  get count(): number {
    return this.#segments.length
  }

  [Symbol.iterator](): Iterator<Aside> {
    return this.#segments[Symbol.iterator]()
  }

  add(aside: Aside): void {
    const at = this.#segments.findIndex(({ first }) => first > aside.first)
    this.#segments.splice(at < 0 ? this.#segments.length : at, 0, aside)
  }

  /** False: it was not there any more. */
  remove(aside: Aside): boolean {
    const at = this.#segments.indexOf(aside)
    if (at < 0) return false
    this.#segments.splice(at, 1)
    this.ready -= aside.ready
    return true
  }

  /** The one that holds a position. */
  of(position: number): Aside | undefined {
    return this.#segments.find(({ first, end }) => first <= position && position < end)
  }

  /** The first one that does not end before a position. */
  from(position: number): Aside | undefined {
    return this.#segments.find(({ end }) => end > position)
  }

  /** The first one of which something was woken. */
  woken(): Aside | undefined {
    return this.#segments.find(({ ready }) => ready > 0)
  }

  wake(aside: Aside): void {
    aside.ready++
    this.ready++
  }

  clear(): void {
    this.#segments.length = 0
    this.ready = 0
  }
}

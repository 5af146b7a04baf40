import type { Moment } from '../model/death-history.ts'
import { Clock } from '../model/message.ts'

/** What is known of a process start's clock. */
interface BootClock {
  readonly boot: number
  readonly wallOffsetMs: number
  readonly clock: Clock
}

/**
 * The moment of a wall time in the order in which messages were accepted: starts are numbered, and within one time only goes forward. So chosen that nothing accepted before it is known to be of that time or later: who reads from there misses nothing and may
 * get too much. It lies in the last start with a trusted clock that began by then; behind it follow starts whose clock was unknown, whole. Are all
 * clocks before that time unknown, they count as they stood as long as they went forward from start to start; where one went back, the moment lies before that.
 *
 * `boots` are the starts known, oldest first, at least one.
 */
export function momentOf(wallMs: number, boots: readonly BootClock[]): Moment {
  const trusted = boots.findLast(({ clock, wallOffsetMs }) => clock !== Clock.unknown && wallOffsetMs <= wallMs)
  let found = trusted ?? boots[0]
  if (found === undefined) throw new TypeError('at least the running start is known')
  if (trusted === undefined) {
    for (const next of boots.slice(1)) {
      if (next.wallOffsetMs > wallMs || next.wallOffsetMs < found.wallOffsetMs) break
      found = next
    }
  }
  return { boot: found.boot, ms: wallMs - found.wallOffsetMs }
}

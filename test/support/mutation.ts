/* Valid packets made wrong, reproducibly. */

/** Whole numbers from 0 below `most`. */
export type Random = (most: number) => number

/** mulberry32: small, fast, and the same for one seed everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed
  return most => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % most
  }
}

const INTERESTING = [0x00, 0x01, 0x02, 0x7f, 0x80, 0xc0, 0xfe, 0xff]
/** Of so many conversations one has a CONNECT that is wrong: the others get to what comes behind it. */
const WRONG_CONNECT_IN = 6
const MOST_MUTATIONS = 3

type Mutation = (frame: Buffer, random: Random) => Buffer

const at = (frame: Buffer, random: Random) => random(Math.max(1, frame.length))

const MUTATIONS: readonly Mutation[] = [
  function flipBit(frame, random) {
    const flipped = Buffer.from(frame)
    const n = at(frame, random)
    flipped[n] = (flipped[n] ?? 0) ^ (1 << random(8))
    return flipped
  },
  function setByte(frame, random) {
    const changed = Buffer.from(frame)
    changed[at(frame, random)] = INTERESTING[random(INTERESTING.length)] ?? 0
    return changed
  },
  function truncate(frame, random) {
    return frame.subarray(0, at(frame, random))
  },
  function lieAboutLength(frame, random) {
    const lied = Buffer.from(frame)
    lied[1] = (lied[1] ?? 0) + 1 + random(255)
    return lied
  },
  function lieAboutInnerLength(frame, random) {
    const lied = Buffer.from(frame)
    const n = 2 + random(Math.max(1, Math.min(frame.length, 24) - 2))
    if (n < lied.length) lied[n] = random(256)
    return lied
  },
  function announceMuch(frame, random) {
    return Buffer.concat([frame.subarray(0, 1), Buffer.from([0xff, 0xff, 0xff, 0x7f]), frame.subarray(1 + random(3))])
  },
  function insert(frame, random) {
    const n = at(frame, random)
    const inserted = Buffer.from(Array.from({ length: 1 + random(4) }, () => random(256)))
    return Buffer.concat([frame.subarray(0, n), inserted, frame.subarray(n)])
  },
  function repeat(frame) {
    return Buffer.concat([frame, frame])
  },
  function dropAll() {
    return Buffer.alloc(0)
  },
]

/** The conversation with up to three of its frames made wrong. */
export function mutate(frames: readonly Buffer[], random: Random): Buffer[] {
  const mutated = [...frames]
  const first = random(WRONG_CONNECT_IN) === 0 || frames.length === 1 ? 0 : 1
  for (let left = random(MOST_MUTATIONS + 1); left > 0; left--) {
    const n = first + random(mutated.length - first)
    const mutation = MUTATIONS[random(MUTATIONS.length)]
    if (mutation !== undefined) mutated[n] = mutation(mutated[n] ?? Buffer.alloc(0), random)
  }
  return mutated
}

/** The bytes in pieces as a network may deliver them: whole, in a few, or one by one. */
export function split(said: Buffer, random: Random): Buffer[] {
  const most = [said.length, 1 + random(Math.max(1, said.length)), 1 + random(16)][random(3)] ?? 1
  const chunks: Buffer[] = []
  for (let from = 0; from < said.length; ) {
    const length = 1 + random(Math.max(1, most))
    // The server may keep nothing of a chunk: it gets a copy that is nobody else's.
    chunks.push(Buffer.from(said.subarray(from, from + length)))
    from += length
  }
  return chunks
}

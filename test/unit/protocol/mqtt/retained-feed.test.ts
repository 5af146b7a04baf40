import { describe, expect, it } from 'vitest'
import { FeedTurns, RetainedFeed, type RetainedWalk } from '../../../../src/protocol/mqtt/retained-feed.ts'
import { SubscriptionIdentifiers } from '../../../../src/protocol/mqtt/subscription-identifiers.ts'

const TOPICS = 20_000

/** A walk over many topics of which none matches. */
class LongWalk implements RetainedWalk {
  visited = 0
  readonly #onVisit: (topics: number) => void

  constructor(onVisit: (topics: number) => void) {
    this.#onVisit = onVisit
  }

  get isDone(): boolean {
    return this.visited === TOPICS
  }

  renew(): void {
    throw new TypeError('nobody goes away here')
  }

  next(steps: number): null {
    const topics = Math.min(steps, TOPICS - this.visited)
    this.visited += topics
    this.#onVisit(topics)
    return null
  }
}

const feedOf = (turns: FeedTurns) =>
  new RetainedFeed({
    turns,
    clientId: 'c1',
    queue: () => null,
    deliveries: { credit: () => Number.POSITIVE_INFINITY, send: () => null },
    identifiers: new SubscriptionIdentifiers('c1'),
    onTooLarge: () => undefined,
  })

describe('RetainedFeed', () => {
  it('many clients with filters that match nothing are looked after in short turns, each as often as the others', async () => {
    const turns = new FeedTurns()
    let visited = 0
    const walks = Array.from({ length: 50 }, () => new LongWalk(topics => (visited += topics)))
    for (const walk of walks) {
      const feed = feedOf(turns)
      feed.begin('+/+/nothing', walk, 0)
      feed.pump()
      // A client that goes on talking is not served more often for that.
      feed.pump()
    }
    expect(visited).toBeLessThan(50 * 1000)
    while (walks.some(({ isDone }) => !isDone)) {
      const before = visited
      await new Promise(setImmediate)
      expect(visited - before).toBeLessThanOrEqual(2 * 5000)
      const ways = walks.map(walk => walk.visited)
      expect(Math.max(...ways) - Math.min(...ways)).toBeLessThanOrEqual(5000)
    }
    expect(visited).toBe(50 * TOPICS)
  })
})

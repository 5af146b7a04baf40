/* Those that attack with topics and filters. */
import { bytes, packet, text } from '../../support/packet-bytes.ts'
import { type Arena, type Attacker, isToldReason } from '../attacker.ts'

/** As many as one SUBSCRIBE may have, and far more. */
const REQUEST_FILTERS = 1_000
const FILTERS = 65_535
/** `limits.subscriptions_per_session`. */
const GRANTED = 100
/** Retained messages that are there when subscribers come and go. */
const RETAINED = 100_000
const DEEP = '/'.repeat(32_767)

/** Nearly `limits.topic`. */
const LONG = 'x'.repeat(900)

const SUBACK = 0x90
const QUOTA_EXCEEDED = 0x97

/** So many topics, each with a retained message of ten bytes. */
async function retain(arena: Arena, count: number): Promise<void> {
  const foe = await arena.client('retains')
  const payload = Buffer.alloc(10)
  for (let n = 0; n < count; n += 500) {
    const batch = Array.from({ length: Math.min(500, count - n) }, (_, i) => packet(0x31, text(`r/${n + i}`), payload))
    if (!foe.says(Buffer.concat(batch))) await foe.hasRoom(() => false)
  }
  foe.says(packet(0xc0))
  await foe.hears(0xd0, 'PINGRESP', 4)
  foe.says(bytes('e0 00'))
  await foe.isCutOff('the end')
}

export const topics: readonly Attacker[] = [
  {
    name: 'many-subscriptions',
    does: 'SUBSCRIBE with 1,000 filters, again and again',
    answer: 'limits.subscriptions_per_session are granted, each further one gets 0x97',
    async attack(arena) {
      const filters = Array.from({ length: REQUEST_FILTERS }, (_, n) => Buffer.concat([text(`s/${n}`), Buffer.of(0)]))
      const subscribe = packet(0x82, '00 01', '00', ...filters)
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`subscribes-${n % 10}`, { version: 5 })
        const from = foe.heardBytes
        foe.says(subscribe)
        await foe.hears(SUBACK, 'SUBACK', from)
        await foe.hasHeard(from + REQUEST_FILTERS, 'all of SUBACK')
        const refused = foe.heard.subarray(from).filter(code => code === QUOTA_EXCEEDED).length
        if (refused !== REQUEST_FILTERS - GRANTED) throw new Error(`${refused} filters were refused`)
        foe.reset()
      }
    },
  },
  {
    name: 'too-many-filters',
    does: 'SUBSCRIBE with 65,535 filters, again and again',
    answer: 'more than 2,000 in one packet: 0x97 and closed',
    async attack(arena) {
      const filters = Array.from({ length: FILTERS }, (_, n) => Buffer.concat([text(`s/${n}`), Buffer.of(0)]))
      const subscribe = packet(0x82, '00 01', '00', Buffer.concat(filters))
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`filters-${n % 10}`, { version: 5 })
        foe.says(subscribe)
        await isToldReason(foe, QUOTA_EXCEEDED)
      }
    },
  },
  {
    name: 'deep-topics',
    does: 'topics and filters of 32,768 levels',
    answer: 'a topic: 0x90 and closed; a filter: 0x8F',
    async attack(arena) {
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`deep-${n % 10}`, { version: 5 })
        const from = 2 + (foe.heard[1] ?? 0)
        foe.says(packet(0x82, '00 01', '00', text(DEEP), '00'))
        await foe.hears(SUBACK, 'SUBACK', from)
        if (foe.heard.at(-1) !== 0x8f && foe.heard.at(-1) !== 0x97) throw new Error(`code ${foe.heard.at(-1)}`)
        foe.says(packet(0x30, text(DEEP), '00', 'x'))
        await isToldReason(foe, 0x90)
      }
    },
  },
  {
    name: 'distinct-topics',
    does: 'ever new topics of 900 bytes, each published to once',
    answer: 'messages like any other: what is remembered of a topic is bounded',
    async attack(arena) {
      const foe = await arena.client('distinct')
      await arena.floods(foe, n =>
        Buffer.concat(Array.from({ length: 100 }, (_, i) => packet(0x30, text(`d/${n}/${i}/${LONG}`), 'x'))),
      )
      if (foe.isClosed) throw new Error('the connection was closed')
    },
  },
  {
    name: 'long-topics',
    does: 'topics of 60,000 bytes',
    answer: 'longer than limits.topic: 0x90 and closed',
    async attack(arena) {
      const long = 'x'.repeat(60_000)
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`long-${n % 10}`, { version: 5 })
        foe.says(packet(0x30, text(`${n}${long}`), '00', 'x'))
        await isToldReason(foe, 0x90)
      }
    },
  },
  {
    name: 'deep-subscriptions',
    does: '100 clients that each subscribe to 100 filters of 128 levels',
    answer: 'beyond limits.session_state each is refused (5.0: 0x97, 3.1.1: 0x80)',
    async attack(arena) {
      const deep = '/x'.repeat(127)
      const foes = await Promise.all(Array.from({ length: 100 }, (_, n) => arena.client(`deep-${n}`)))
      const isRefused = () => foes.some(foe => foe.heard.at(-1) === 0x80)
      for (let n = 0; n < 100 && !(arena.isOver && isRefused()); n++) {
        await Promise.all(
          foes.map(async (foe, i) => {
            foe.says(packet(0x82, '00 01', text(`${i}-${n}${deep}`), '00'))
            await foe.hasHeard(4 + 5 * (n + 1), 'SUBACK')
          }),
        )
      }
      if (!isRefused()) throw new Error('all were granted')
    },
  },
  {
    name: 'subscription-churn',
    does: 'SUBSCRIBE to # and UNSUBSCRIBE in turn, as fast as it is taken, with 100,000 retained messages',
    answer: 'each is answered; retained messages follow as the client takes them',
    async attack(arena) {
      await retain(arena, RETAINED)
      arena.begin()
      const foe = await arena.client('churns')
      const churn = Buffer.concat(
        Array<Buffer>(100).fill(
          Buffer.concat([packet(0x82, '00 01', text('#'), '00'), packet(0xa2, '00 02', text('#'))]),
        ),
      )
      await arena.floods(foe, () => churn)
      if (foe.isClosed) throw new Error('the connection was closed')
      if (foe.heardBytes < 1_000) throw new Error(`heard only ${foe.heardBytes} bytes`)
    },
  },
  {
    name: 'retained-to-many',
    does: '50 clients that subscribe to # at once, with 100,000 retained messages',
    answer: 'each is sent all of them, in turns',
    async attack(arena) {
      await retain(arena, RETAINED)
      arena.begin()
      const foes = await Promise.all(Array.from({ length: 50 }, (_, n) => arena.client(`all-${n}`)))
      for (const foe of foes) foe.says(packet(0x82, '00 01', text('#'), '00'))
      await arena.pass()
      if (foes.some(foe => foe.isClosed || foe.heardBytes < 10_000)) throw new Error('one was not served')
    },
  },
  {
    name: 'group-churn',
    does: 'joins groups that share a subscription and leaves them, as fast as it is taken',
    answer: 'each is answered; a group goes with its last member',
    async attack(arena) {
      const foe = await arena.client('joins')
      await arena.floods(foe, n => {
        const filter = text(`$share/g${n % 1_000}/c/${n % 7}`)
        return Buffer.concat([packet(0x82, '00 01', filter, '01'), packet(0xa2, '00 02', filter)])
      })
      if (foe.isClosed) throw new Error('the connection was closed')
    },
  },
]

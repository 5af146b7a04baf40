import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Unconfirmed } from '../../../src/bridge/unconfirmed.ts'

/** Positions 100, 101, … with tags 1, 2, … */
function filled(count: number, window = 8): Unconfirmed {
  const unconfirmed = new Unconfirmed(window)
  for (let i = 0; i < count; i++) unconfirmed.add(100 + i, `id-${i}`, 10, i % 2 === 0)
  return unconfirmed
}

function answer(unconfirmed: Unconfirmed, tag: number, isMultiple: boolean): [number, boolean][] {
  const found: [number, boolean][] = []
  const count = unconfirmed.answer(tag, isMultiple, (position, _bytes, _isLive, isReturned) =>
    found.push([position, isReturned]),
  )
  expect(count).toBe(found.length)
  return found
}

test('a confirm settles the message of its tag', () => {
  const unconfirmed = filled(3)
  expect(answer(unconfirmed, 2, false)).toEqual([[101, false]])
  expect(unconfirmed.count).toBe(2)
})

test('a multiple confirm settles everything up to its tag that is still out, in order', () => {
  const unconfirmed = filled(4)
  answer(unconfirmed, 2, false)
  expect(answer(unconfirmed, 3, true).map(([position]) => position)).toEqual([100, 102])
  expect(unconfirmed.count).toBe(1)
})

test('a multiple confirm with tag 0 settles everything', () => {
  expect(answer(filled(4), 0, true)).toHaveLength(4)
})

test.each([
  ['twice', 1, false],
  ['of a tag not given out yet', 4, false],
  ['of tag 0', 0, false],
  ['of a negative tag', -5, false],
])('a confirm %s changes nothing', (_what, tag, isMultiple) => {
  const unconfirmed = filled(3)
  answer(unconfirmed, 1, false)
  expect(answer(unconfirmed, tag, isMultiple)).toEqual([])
  expect(unconfirmed.count).toBe(2)
})

test('a multiple confirm beyond the youngest tag settles what is out and nothing that comes later', () => {
  const unconfirmed = filled(2)
  expect(answer(unconfirmed, 1_000_000_000, true)).toHaveLength(2)
  unconfirmed.add(200, 'later', 10, true)
  expect(unconfirmed.count).toBe(1)
})

test('a return marks the message with that id, and the confirm that follows tells so', () => {
  const unconfirmed = filled(3)
  unconfirmed.markReturned('id-1')
  unconfirmed.markReturned('nobody')
  expect(answer(unconfirmed, 3, true)).toEqual([
    [100, false],
    [101, true],
    [102, false],
  ])
})

test('what a message was sent as, live or backlog, is told with its answer, returned or not', () => {
  const unconfirmed = filled(4)
  unconfirmed.markReturned('id-0')
  unconfirmed.markReturned('id-1')
  const told: [boolean, boolean][] = []
  unconfirmed.answer(0, true, (_position, _bytes, isLive, isReturned) => told.push([isLive, isReturned]))
  expect(told).toEqual([
    [true, true],
    [false, true],
    [true, false],
    [false, false],
  ])
})

test('a message confirmed out of turn is not found again by its id', () => {
  const unconfirmed = filled(3)
  answer(unconfirmed, 2, false)
  unconfirmed.markReturned('id-1')
  expect(answer(unconfirmed, 3, true).every(([, isReturned]) => !isReturned)).toBe(true)
})

test('confirms may run ahead of one that is missing by three windows, then there is no room until it comes', () => {
  const unconfirmed = new Unconfirmed(8)
  unconfirmed.add(0, '', 1, true)
  let tag = 1
  while (unconfirmed.hasRoom) {
    unconfirmed.add(tag, '', 1, true)
    answer(unconfirmed, ++tag, false)
  }
  expect(tag).toBe(32)
  expect(answer(unconfirmed, 1, false)).toEqual([[0, false]])
  expect(unconfirmed.hasRoom).toBe(true)
})

test('a consumer may add messages while it is told of answers', () => {
  const unconfirmed = filled(4)
  expect(unconfirmed.answer(4, true, position => unconfirmed.add(position + 100, '', 1, false))).toBe(4)
  expect(unconfirmed.count).toBe(4)
})

test('whatever order confirms come in, each message is told once', () => {
  const confirm = fc.record({ tag: fc.integer({ min: 0, max: 70 }), isMultiple: fc.boolean() })
  fc.assert(
    fc.property(fc.array(confirm), confirms => {
      const unconfirmed = new Unconfirmed(16)
      const told: number[] = []
      let added = 0
      for (const { tag, isMultiple } of confirms) {
        while (unconfirmed.hasRoom && unconfirmed.count < 16) unconfirmed.add(added++, '', 1, false)
        unconfirmed.answer(tag, isMultiple, position => told.push(position))
      }
      unconfirmed.clear(position => told.push(position))
      expect(told.sort((a, b) => a - b)).toEqual(Array.from({ length: added }, (_, i) => i))
      expect(unconfirmed.count).toBe(0)
    }),
  )
})

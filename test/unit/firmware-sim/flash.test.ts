import { expect, test } from 'vitest'
import { Flash } from '../../../firmware-sim/flash.ts'

test('entries are found by position until they are released', () => {
  const flash = new Flash<string>(4)
  const first = flash.append('a')
  const second = flash.append('b')
  expect([flash.at(first), flash.at(second)]).toEqual(['a', 'b'])
  flash.release(first)
  expect(flash.at(first)).toBeUndefined()
  expect(flash.at(second)).toBe('b')
  expect(flash.first).toBe(second)
})

test('entries released out of order give their room back once the older ones are released', () => {
  const flash = new Flash<string>(4)
  for (const value of ['a', 'b', 'c']) flash.append(value)
  flash.release(1)
  expect(flash.first).toBe(0)
  expect(flash.at(1)).toBeUndefined()
  flash.release(0)
  expect(flash.first).toBe(2)
  expect(flash.at(2)).toBe('c')
})

test('a full ring overwrites its oldest entry and counts it', () => {
  const flash = new Flash<number>(3)
  for (let value = 0; value < 5; value++) flash.append(value)
  expect(flash.overwritten).toBe(2)
  expect([flash.first, flash.end]).toEqual([2, 5])
  expect(flash.at(1)).toBeUndefined()
  expect([flash.at(2), flash.at(3), flash.at(4)]).toEqual([2, 3, 4])
})

test('overwriting skips entries that were released behind the oldest one and does not count them', () => {
  const flash = new Flash<number>(3)
  for (let value = 0; value < 3; value++) flash.append(value)
  flash.release(1)
  flash.append(3)
  expect(flash.overwritten).toBe(1)
  expect(flash.first).toBe(2)
  flash.append(4)
  expect(flash.overwritten).toBe(1)
})

test('a release of what has been overwritten changes nothing', () => {
  const flash = new Flash<number>(2)
  for (let value = 0; value < 4; value++) flash.append(value)
  flash.release(0)
  expect([flash.at(2), flash.at(3)]).toEqual([2, 3])
  expect(flash.first).toBe(2)
})

test('a ring without room is refused', () => {
  expect(() => new Flash(0)).toThrow(TypeError)
})

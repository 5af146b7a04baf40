import { expect, test } from 'vitest'
import { eventually, eventuallyPasses } from '../../support/eventually.ts'

test('eventually returns the first truthy value and tolerates errors until then', async () => {
  let looks = 0
  const value = await eventually(
    () => {
      looks++
      if (looks === 1) throw new Error('not there yet')
      return looks < 3 ? undefined : 'there'
    },
    { intervalMs: 1 },
  )
  expect(value).toBe('there')
  expect(looks).toBe(3)
})

test('eventually fails at the deadline and says what it waited for and what went wrong last', async () => {
  const refused = new Error('refused')
  const waiting = eventually(
    () => {
      throw refused
    },
    { deadlineMs: 5, intervalMs: 1, what: 'the port' },
  )
  await expect(waiting).rejects.toMatchObject({ message: 'the port did not come true within 5 ms', cause: refused })
})

test('undefined is not yet: a block without a result never counts as true', async () => {
  const block = () => {
    expect(1).toBe(1)
  }
  await expect(eventually(block, { deadlineMs: 5, intervalMs: 1 })).rejects.toThrow('did not come true')
})

test('eventuallyPasses ends when the assertion holds, and throws its last error at the deadline', async () => {
  let looks = 0
  await eventuallyPasses(() => expect(++looks).toBe(3), { intervalMs: 1 })
  expect(looks).toBe(3)
  const failing = eventuallyPasses(() => expect('blue').toBe('green'), { deadlineMs: 5, intervalMs: 1 })
  await expect(failing).rejects.toThrow('green')
})

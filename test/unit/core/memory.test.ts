import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { MemoryBudget, type MemoryHolder } from '../../../src/core/memory.ts'

const LIMIT = 1000

/** Holds bytes, part of which the disk has too. */
class Holder implements MemoryHolder {
  heldBytes = 0
  readonly #memory: MemoryBudget
  #onDisk = 0

  constructor(memory: MemoryBudget) {
    this.#memory = memory
    memory.join(this)
  }

  take(bytes: number, { onDisk = 0 } = {}): void {
    this.heldBytes += bytes
    this.#onDisk += onDisk
    this.#memory.take(bytes)
  }

  give(bytes: number): void {
    this.heldBytes -= bytes
    this.#memory.give(bytes)
  }

  evict(): void {
    this.give(this.#onDisk)
    this.#onDisk = 0
  }

  giveWay(): void {
    this.give(Math.ceil(this.heldBytes / 2))
  }
}

describe('limits.memory', () => {
  test('is reached at its bytes, relieved below nine tenths, and never passed by more than a quarter', () => {
    const memory = new MemoryBudget(LIMIT)
    let reliefs = 0
    memory.onRelief = () => reliefs++
    memory.take(999)
    expect(memory.isPressed).toBe(false)
    expect(memory.hasRoomFor(251)).toBe(true)
    expect(memory.hasRoomFor(252)).toBe(false)
    memory.take(1)
    expect([memory.isPressed, memory.pressed]).toEqual([true, 1])
    memory.give(100)
    expect(memory.isPressed).toBe(true)
    memory.give(1)
    expect([memory.isPressed, reliefs]).toEqual([false, 1])
  })

  test('what is on disk too leaves memory in the turn after it was reached', async () => {
    const memory = new MemoryBudget(LIMIT)
    const [one, other] = [new Holder(memory), new Holder(memory)]
    one.take(500, { onDisk: 50 })
    other.take(500, { onDisk: 300 })
    expect(memory.usedBytes).toBe(1000)
    await turn()
    expect([one.heldBytes, other.heldBytes, memory.isPressed]).toEqual([450, 200, false])
  })

  test('after two seconds those that hold most give way, and no more of them than it takes', async () => {
    const memory = new MemoryBudget(LIMIT)
    const [small, large] = [new Holder(memory), new Holder(memory)]
    small.take(100)
    large.take(900)
    memory.relieve()
    expect(memory.usedBytes).toBe(1000)
    memory.relieve()
    expect([small.heldBytes, large.heldBytes]).toEqual([100, 450])
  })

  test('after five seconds it says how much is in the way', () => {
    const memory = new MemoryBudget(LIMIT)
    const jams: number[] = []
    memory.onJam = bytes => jams.push(bytes)
    memory.take(1100)
    for (let second = 1; second <= 5; second++) memory.relieve()
    expect(jams).toEqual([200])
  })

  test('a holder that has left is not asked', async () => {
    const memory = new MemoryBudget(LIMIT)
    const holder = new Holder(memory)
    holder.take(1000, { onDisk: 1000 })
    memory.leave(holder)
    await turn()
    expect(memory.usedBytes).toBe(1000)
  })

  test('reads go on in turn, four at once, and none while it is reached', async () => {
    const memory = new MemoryBudget(LIMIT)
    const order: number[] = []
    const open: (() => void)[] = []
    const read = (n: number) =>
      memory.read(() => {
        order.push(n)
        return new Promise<void>(resolve => open.push(resolve))
      })
    const reads = Array.from({ length: 6 }, (_, n) => read(n))
    await turn()
    expect(order).toEqual([0, 1, 2, 3])
    memory.take(LIMIT)
    open.shift()?.()
    await turn()
    await turn()
    expect(order).toHaveLength(4)
    memory.give(LIMIT)
    await turn()
    expect(order).toEqual([0, 1, 2, 3, 4])
    while (open.length > 0) {
      open.shift()?.()
      await turn()
      await turn()
    }
    await Promise.all(reads)
    expect(order).toEqual([0, 1, 2, 3, 4, 5])
  })

  test('a read that fails gives its turn back', async () => {
    const memory = new MemoryBudget(LIMIT)
    const failures = Array.from({ length: 8 }, () => memory.read(() => Promise.reject(new Error('damaged'))))
    expect((await Promise.allSettled(failures)).map(({ status }) => status)).toEqual(Array(8).fill('rejected'))
    expect(await memory.read(async () => 'read')).toBe('read')
  })
})

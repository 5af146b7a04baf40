import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MemoryBudget } from '../../../../src/core/memory.ts'
import { MqttCounters } from '../../../../src/protocol/mqtt/counters.ts'
import { CONTROL_ROOM_BYTES } from '../../../../src/protocol/mqtt/limits.ts'
import { Output, type OutputOwner } from '../../../../src/protocol/mqtt/output.ts'

/** A stream that takes what it is given at once, or when it is told to. */
class Pipe extends Duplex {
  isOpen = true
  writes = 0
  readonly taken: Buffer[] = []
  #waiting: (() => void) | null = null

  override _read(): void {
    // Nothing is ever read from it.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#take([chunk], done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#take(
      chunks.map(({ chunk }) => chunk),
      done,
    )
  }

  #take(chunks: Buffer[], done: () => void): void {
    if (chunks.some(chunk => chunk.length > 0)) this.writes++
    const take = () => {
      for (const chunk of chunks) this.taken.push(Buffer.from(chunk))
      done()
    }
    if (this.isOpen) take()
    else this.#waiting = take
  }

  open(): void {
    this.isOpen = true
    this.#waiting?.()
    this.#waiting = null
  }

  get text(): string {
    return Buffer.concat(this.taken).toString()
  }
}

function setUp(limitBytes = 1024 ** 2) {
  const pipe = new Pipe()
  const memory = new MemoryBudget(64 * 1024 ** 2)
  const told: string[] = []
  const owner: OutputOwner = {
    outputDrained: () => told.push('drained'),
    outputOverrun: () => told.push('overrun'),
  }
  const counters = new MqttCounters()
  const output = new Output(pipe, { memory, counters, limitBytes, owner })
  const say = (text: string) => output.append(Buffer.from(text), 0, Buffer.byteLength(text))
  return { pipe, memory, counters, told, output, say }
}

describe('output', () => {
  test('what is gathered in a turn leaves in one write', async () => {
    const { pipe, memory, counters, output, say } = setUp()
    for (let n = 0; n < 10; n++) say(`${n}`)
    expect(pipe.writes).toBe(0)
    expect(memory.usedBytes).toBeGreaterThan(0)
    await turn()
    expect(pipe.writes).toBe(1)
    expect(pipe.text).toBe('0123456789')
    expect(output.pendingBytes).toBe(0)
    expect(counters.bytesOut).toBe(10)
    expect(memory.usedBytes).toBe(0)
  })

  test('while a write is under way the rest waits behind it, and then leaves in order', async () => {
    const { pipe, memory, output, say } = setUp()
    pipe.isOpen = false
    say('a')
    await turn()
    say('b')
    await turn()
    say('c')
    await turn()
    expect(pipe.taken).toHaveLength(0)
    expect(output.pendingBytes).toBe(3)
    pipe.open()
    await turn()
    await turn()
    expect(pipe.text).toBe('abc')
    expect(memory.usedBytes).toBe(0)
  })

  test('pieces of any size come out as they went in', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 200_000 }), { maxLength: 20 }), async sizes => {
        const { pipe, memory, output } = setUp(16 * 1024 ** 2)
        const pieces = sizes.map((size, n) => Buffer.alloc(size, `${n % 10}`))
        for (const piece of pieces) {
          output.reserve(2)
          output.block[output.used] = 0x5b
          output.block[output.used + 1] = 0x5d
          output.commit(2)
          output.append(piece, 0, piece.length)
        }
        await turn()
        await turn()
        const expected = Buffer.concat(pieces.flatMap(piece => [Buffer.from('[]'), piece]))
        expect(Buffer.concat(pipe.taken).equals(expected)).toBe(true)
        expect(memory.usedBytes).toBe(0)
      }),
      { numRuns: 30 },
    )
  })

  test('full at its limit; drained at half of it, told in a turn of its own', async () => {
    const { pipe, told, output, say } = setUp(1000)
    pipe.isOpen = false
    say('x'.repeat(999))
    expect(output.isFull).toBe(false)
    say('x')
    expect(output.isFull).toBe(true)
    say('x')
    pipe.open()
    await turn()
    await turn()
    await turn()
    expect(output.isFull).toBe(false)
    expect(told).toEqual(['drained'])
  })

  test('acknowledgements have room beyond the limit, but not without end', () => {
    const { pipe, told, output, say } = setUp(1000)
    pipe.isOpen = false
    say('x'.repeat(1000))
    const ack = Buffer.alloc(4)
    for (let n = 0; n < CONTROL_ROOM_BYTES / 4; n++) {
      output.append(ack, 0, 4)
      output.control(4)
    }
    expect(told).toEqual([])
    output.append(ack, 0, 4)
    output.control(4)
    expect(told).toEqual(['overrun'])
  })

  test('the end comes behind everything gathered, also behind a write under way', async () => {
    const { pipe, output, say } = setUp()
    let isEnded = false
    pipe.on('finish', () => {
      isEnded = true
    })
    pipe.isOpen = false
    say('a')
    await turn()
    say('b')
    output.end()
    say('never')
    await turn()
    expect(isEnded).toBe(false)
    pipe.open()
    for (let n = 0; n < 5; n++) await turn()
    expect(pipe.text.startsWith('ab')).toBe(true)
    expect(isEnded).toBe(true)
  })

  test('closed, it gives all memory back, and what is still written goes nowhere', async () => {
    const { pipe, memory, output, say } = setUp()
    pipe.isOpen = false
    say('x'.repeat(300_000))
    expect(memory.usedBytes).toBeGreaterThanOrEqual(300_000)
    output.close()
    expect(memory.usedBytes).toBe(0)
    say('y')
    pipe.open()
    await turn()
    expect(memory.usedBytes).toBe(0)
    expect(pipe.text).not.toContain('y')
  })
})

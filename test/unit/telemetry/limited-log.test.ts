import pino from 'pino'
import { expect, test } from 'vitest'
import { LimitedLog } from '../../../src/telemetry/limited-log.ts'

function written(level = 'info') {
  const lines: Record<string, unknown>[] = []
  let nowMs = 0
  const log = pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line)) })
  const limited = new LimitedLog(log, () => nowMs)
  return { lines, limited, pass: (ms: number) => (nowMs += ms) }
}

test('500 reconnects a second wrote a thousand lines a second to the card: beyond a burst there are two a second', () => {
  const { lines, limited, pass } = written()
  for (let n = 0; n < 100_000; n++) {
    pass(1)
    limited.write('info', { n }, 'client connected')
  }
  expect(lines.length).toBeGreaterThanOrEqual(299)
  expect(lines.length).toBeLessThanOrEqual(301)
})

test('a line behind those that were left out says how many they were', () => {
  const { lines, limited, pass } = written()
  for (let n = 0; n < 150; n++) limited.write('info', { n }, 'client connected')
  expect(lines).toHaveLength(100)
  expect(lines.at(-1)).not.toHaveProperty('left_out')
  pass(500)
  limited.write('warn', { n: 150 }, 'something else')
  expect(lines.at(-1)).toMatchObject({ n: 150, left_out: 50, msg: 'something else' })
  pass(500)
  limited.write('info', { n: 151 }, 'client connected')
  expect(lines.at(-1)).not.toHaveProperty('left_out')
})

test('what the level keeps out is not counted as left out', () => {
  const { lines, limited } = written('warn')
  for (let n = 0; n < 150; n++) limited.write('info', { n }, 'client connected')
  limited.write('warn', {}, 'something else')
  expect(lines).toHaveLength(1)
  expect(lines[0]).not.toHaveProperty('left_out')
})

import { expect, test } from 'vitest'
import { both, client, server } from '../../../scripts/conformance/statement.ts'
import {
  evidenceOf,
  notShown,
  readTags,
  renderTables,
  STANDARDS,
  type Standard,
  unknownTags,
} from '../../../scripts/protocols-docs.ts'

const files = (contents: Readonly<Record<string, string>>) => new Map(Object.entries(contents))

const STANDARD: Standard = {
  version: '3.1.1',
  statements: [
    both('1.5.3-1', 'Strings are valid.', { like: '1.5.4-1' }),
    server('3.1.2-2', 'A level nobody speaks is refused.'),
    server('6.0.0-4', 'mqtt is chosen.', { moot: 'no WebSocket' }),
    client('3.1.2-23', 'It pings.'),
  ],
}

test('each statement has one number, and those like one of 5.0 name one there is', () => {
  const numbersOf5 = new Set(STANDARDS[0]?.statements.map(({ id }) => id))
  for (const { statements } of STANDARDS) {
    expect(new Set(statements.map(({ id }) => id)).size).toBe(statements.length)
    for (const { like } of statements) if (like !== null) expect(numbersOf5).toContain(like)
  }
  expect(STANDARDS.map(({ statements }) => statements.length)).toEqual([251, 141])
})

test('a tag is of 5.0 unless 3.1.1 stands before it, or before the list it is in', () => {
  const text = 'x\ny // [MQTT-3.1.2-2], 3.1.1 [MQTT-3.1.2-2], [MQTT-3.1.2-3]; [MQTT-3.1.2-4]'
  expect(readTags(files({ 'src/a.ts': text }))).toEqual([
    { path: 'src/a.ts', line: 2, key: '5.0 3.1.2-2' },
    { path: 'src/a.ts', line: 2, key: '3.1.1 3.1.2-2' },
    { path: 'src/a.ts', line: 2, key: '3.1.1 3.1.2-3' },
    { path: 'src/a.ts', line: 2, key: '5.0 3.1.2-4' },
  ])
})

test('a tag that names no statement is found, one of the other standard too', () => {
  const tags = readTags(files({ 'src/a.ts': '[MQTT-1.5.3-1] 3.1.1 [MQTT-1.5.3-1] [MQTT-1.5.4] [MQTT-3-8.3-4]' }))
  expect(unknownTags(tags).map(({ key }) => key)).toEqual(['5.0 1.5.3-1', '5.0 1.5.4', '5.0 3-8.3-4'])
})

test('a statement is shown by code and a test, its own or those of the statement it is like', () => {
  const tags = readTags(
    files({ 'src/a.ts': '[MQTT-1.5.4-1]', 'test/b.test.ts': '3.1.1 [MQTT-1.5.3-1] [MQTT-3.1.2-2]' }),
  )
  expect(evidenceOf(STANDARD, tags)[0]).toMatchObject({ code: ['a.ts'], tests: ['b.test.ts'] })
  expect(notShown(evidenceOf(STANDARD, tags)).map(({ statement }) => statement.id)).toEqual(['3.1.2-2'])
})

test('what a client of ours does says nothing about the server', () => {
  const tags = readTags(
    files({ 'src/cli/a.ts': '3.1.1 [MQTT-3.1.2-2]', 'test/unit/cli/a.test.ts': '3.1.1 [MQTT-3.1.2-2]' }),
  )
  expect(evidenceOf(STANDARD, tags)[1]).toMatchObject({ code: [], tests: [] })
})

test('the document lists every statement of both standards', () => {
  const text = renderTables([])
  for (const { statements } of STANDARDS)
    for (const { id } of statements) expect(text).toMatch(new RegExp(`^\\| MQTT-${id} \\|`, 'm'))
})

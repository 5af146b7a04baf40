import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readFiles } from '../../../scripts/imports.ts'
import { findViolations } from '../../../scripts/layers.ts'

/** `path:line rule` of each violation in a tree of a few files. */
function violations(files: Readonly<Record<string, string>>): string[] {
  return findViolations(new Map(Object.entries(files))).map(({ path, line, rule }) => `${path}:${line} ${rule}`)
}

describe('the table of layers', () => {
  test.each([
    ['src/model/a.ts', "import { x } from '../core/queue.ts'", 'model/ must not import src/core/queue.ts'],
    ['src/model/a.ts', "import { readFileSync } from 'node:fs'", 'model/ must not import node:fs'],
    ['src/telemetry/a.ts', "import { x } from '../core/queue.ts'", 'telemetry/ must not import src/core/queue.ts'],
    [
      'src/telemetry/a.ts',
      "import { x } from '../config/schema.ts'",
      'telemetry/ must not import src/config/schema.ts',
    ],
    ['src/store/a.ts', "import type { Queue } from '../core/queue.ts'", 'store/ must not import src/core/queue.ts'],
    ['src/core/a.ts', "import { connect } from 'node:net'", 'core/ must not import node:net'],
    [
      'src/core/a.ts',
      "import { x } from '../protocol/mqtt/frame.ts'",
      'core/ must not import src/protocol/mqtt/frame.ts',
    ],
    [
      'src/protocol/mqtt/a.ts',
      "import { x } from '../amqp/frame.ts'",
      'protocol/mqtt/ must not import src/protocol/amqp/frame.ts',
    ],
    [
      'src/protocol/mqtt/a.ts',
      "import { x } from '../../store/store.ts'",
      'protocol/mqtt/ must not import src/store/store.ts',
    ],
    [
      'src/protocol/mqtt/a.ts',
      "import { x } from '../../transport/tcp.ts'",
      'protocol/mqtt/ must not import src/transport/tcp.ts',
    ],
    ['src/bridge/a.ts', "import { x } from '../store/store.ts'", 'bridge/ must not import src/store/store.ts'],
    ['src/bridge/a.ts', "import amqplib from 'amqplib'", 'imports the AMQP client'],
    [
      'src/transport/a.ts',
      "import { x } from '../protocol/mqtt/server.ts'",
      'transport/ must not import src/protocol/mqtt/server.ts',
    ],
    ['src/api/a.ts', "import { x } from '../store/store.ts'", 'api/ must not import src/store/store.ts'],
    [
      'src/api/a.ts',
      "const x = await import('../protocol/mqtt/server.ts')",
      'api/ must not import src/protocol/mqtt/server.ts',
    ],
    ['src/cli/commands/status.ts', "import { x } from '../../core/queue.ts'", 'cli/ must not import src/core/queue.ts'],
    ['src/cli/commands/status.ts', "import { x } from '../../broker.ts'", 'cli/ must not import src/broker.ts'],
    [
      'src/cli/commands/run.ts',
      "import { x } from '../../../firmware-sim/fleet.ts'",
      'cli run must not import firmware-sim/fleet.ts',
    ],
    ['src/main.ts', "import { x } from './core/queue.ts'", 'program must not import src/core/queue.ts'],
    [
      'firmware-sim/a.ts',
      "import { x } from '../src/model/message.ts'",
      'firmware-sim/ must not import src/model/message.ts',
    ],
    ['src/core/a.ts', "export { x } from './queue.ts'", 'passes on what ./queue.ts defines (barrel)'],
    ['src/core/a.ts', "export * from './queue.ts'", 'passes on what ./queue.ts defines (barrel)'],
    ['src/elsewhere/a.ts', '', 'this file is in no layer'],
  ])('%s: %s', (path, line, rule) => {
    expect(violations({ [path]: `// first line\n${line}\n` })).toEqual([
      `${path}:${rule === 'this file is in no layer' ? 1 : 2} ${rule}`,
    ])
  })

  test.each([
    ['src/core/a.ts', "import { x } from '../store/store.ts'"],
    ['src/store/a.ts', "import type { Config } from '../config/schema.ts'"],
    ['src/store/a.ts', "import type { Logger } from '../telemetry/log.ts'"],
    ['src/bridge/amqp-link.ts', "import amqplib from 'amqplib'"],
    ['src/broker.ts', "import { x } from './protocol/mqtt/server.ts'"],
    ['src/cli/commands/run.ts', "import { x } from '../../broker.ts'"],
    ['src/cli/commands/demo.ts', "import { x } from '../../../firmware-sim/fleet.ts'"],
    ['src/cli/commands/status.ts', "import { x } from '../../api/contract.ts'"],
    ['firmware-sim/a.ts', "import mqttPacket from 'mqtt-packet'"],
    ['src/core/a.ts', "// import { connect } from 'node:net'"],
  ])('%s may: %s', (path, line) => {
    expect(violations({ [path]: line })).toEqual([])
  })

  test('an import over several lines is judged at its first', () => {
    expect(violations({ 'src/model/a.ts': "\nimport {\n  x,\n  y,\n} from '../core/queue.ts'\n" })).toEqual([
      'src/model/a.ts:2 model/ must not import src/core/queue.ts',
    ])
  })

  test('every rule says what to do instead', () => {
    for (const { instead } of findViolations(
      new Map([['src/core/a.ts', "import 'node:net'\nexport * from './b.ts'"]]),
    )) {
      expect(instead.length).toBeGreaterThan(10)
    }
  })
})

describe('circles', () => {
  test('of values are found wherever one enters them', () => {
    const circle = violations({
      'src/core/a.ts': "import { b } from './b.ts'",
      'src/core/b.ts': "import { c } from './c.ts'",
      'src/core/c.ts': "import { a } from './a.ts'",
    })
    expect(circle).toEqual([
      'src/core/c.ts:1 closes a circle: src/core/a.ts → src/core/b.ts → src/core/c.ts → src/core/a.ts',
    ])
  })

  test('of types, which are erased, and through lazy imports are none', () => {
    expect(
      violations({
        'src/core/a.ts': "import { b } from './b.ts'",
        'src/core/b.ts':
          "import type { A } from './a.ts'\nimport { type A as B, type C } from './a.ts'\nconst a = () => import('./a.ts')",
      }),
    ).toEqual([])
  })
})

test('the sources keep to the table', () => {
  const files = readFiles(join(import.meta.dirname, '../../..'), ['src', 'firmware-sim'], '.ts')
  expect(files.size).toBeGreaterThan(50)
  expect(findViolations(files)).toEqual([])
})

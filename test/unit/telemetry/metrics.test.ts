import { expect, test } from 'vitest'
import { Metrics, processMetrics } from '../../../src/telemetry/metrics.ts'

test('figures are read when they are rendered, and not before', () => {
  let depth = 1
  const metrics = new Metrics()
  metrics.add({ name: 'sluice_queue_messages', help: 'Messages waiting.', kind: 'gauge', read: () => depth })
  depth = 7
  expect(metrics.render()).toBe(
    '# HELP sluice_queue_messages Messages waiting.\n# TYPE sluice_queue_messages gauge\nsluice_queue_messages 7\n',
  )
})

test('labels tell samples apart, and hostile label values stay inside their quotes', () => {
  const metrics = new Metrics()
  metrics.add({
    name: 'sluice_dropped_messages_total',
    help: 'Dropped, by\nreason.',
    kind: 'counter',
    read: () => [
      { labels: { queue: 'a"} 1\n', reason: 'over\\flow' }, value: 2 },
      { labels: {}, value: Number.POSITIVE_INFINITY },
    ],
  })
  expect(metrics.render()).toBe(
    [
      '# HELP sluice_dropped_messages_total Dropped, by\\nreason.',
      '# TYPE sluice_dropped_messages_total counter',
      'sluice_dropped_messages_total{queue="a\\"} 1\\n",reason="over\\\\flow"} 2',
      'sluice_dropped_messages_total +Inf',
      '',
    ].join('\n'),
  )
})

test('a name used twice, a counter without _total and a bad name are mistakes of the program', () => {
  const metrics = new Metrics()
  const metric = { name: 'sluice_x', help: '', kind: 'gauge', read: () => 0 } as const
  metrics.add(metric)
  expect(() => metrics.add(metric)).toThrow(TypeError)
  expect(() => metrics.add({ ...metric, name: 'sluice_y', kind: 'counter' })).toThrow(/end in _total/)
  expect(() => metrics.add({ ...metric, name: 'sluice_z_total' })).toThrow(/end in _total/)
  expect(() => metrics.add({ ...metric, name: 'Sluice-Z' })).toThrow(/no metric name/)
})

test('the process tells its memory, CPU time and start', () => {
  const metrics = new Metrics()
  metrics.add(...processMetrics())
  const read = (name: string) => Number(new RegExp(`^${name} (.*)$`, 'm').exec(metrics.render())?.[1])
  expect(read('process_resident_memory_bytes')).toBeGreaterThan(10_000_000)
  expect(read('process_cpu_seconds_total')).toBeGreaterThan(0)
  expect(Math.abs(read('process_start_time_seconds') - (Date.now() - performance.now()) / 1000)).toBeLessThan(5)
})

import { expect, test } from 'vitest'
import { type Arrival, Arrivals } from '../../../firmware-sim/arrivals.ts'
import type { LedgerSnapshot } from '../../../firmware-sim/ledger.ts'

const EPOCH_A = 'aaaaaaaaaa'
const EPOCH_B = 'bbbbbbbbbb'

interface Given {
  readonly id: number | string
  readonly seq: number
  readonly device?: string
  readonly epoch?: string
  readonly dup?: boolean
  readonly replay?: boolean
  readonly retried?: boolean
}

function arrival({
  id,
  seq,
  device = 'm1',
  epoch = EPOCH_A,
  dup = false,
  replay = false,
  retried = false,
}: Given): Arrival {
  return {
    messageId: typeof id === 'string' ? id : `gw-1/${epoch}/${id}`,
    topic: `sensors/${device}/energy`,
    clientId: device,
    isDup: dup,
    isReplay: replay,
    isRetried: retried,
    payload: Buffer.from(JSON.stringify({ device, seq, at: 0, watts: 1 })),
  }
}

function ledger(acknowledged: LedgerSnapshot['acknowledged'], rest: Partial<LedgerSnapshot> = {}): LedgerSnapshot {
  return { device: 'm1', topic: 'sensors/m1/energy', qos: 1, acknowledged, unacknowledged: [], ...rest }
}

function arrived(...given: readonly Given[]): Arrivals {
  const arrivals = new Arrivals()
  for (const one of given) arrivals.note(arrival(one))
  return arrivals
}

test('everything acknowledged and received in order is faultless', () => {
  const report = arrived({ id: 1, seq: 1 }, { id: 2, seq: 2 }).report([ledger([[1, 2]])])
  expect(report).toMatchObject({ received: 2, acknowledged: 2, lost: 0, repeatedIds: 0, isFaultless: true })
  expect(report.gateways).toEqual([{ gateway: 'gw-1', epochs: 1, received: 2 }])
})

test('an acknowledged reading that did not arrive is lost, and named', () => {
  const arrivals = arrived({ id: 1, seq: 1 }, { id: 4, seq: 4 })
  expect(arrivals.missing([ledger([[1, 4]])])).toBe(2)
  const report = arrivals.report([ledger([[1, 4]])])
  expect(report).toMatchObject({ lost: 2, isFaultless: false })
  expect(report.devices[0]?.lost).toEqual([[2, 3]])
})

test('a device of which nothing arrived at all has lost everything acknowledged', () => {
  expect(new Arrivals().missing([ledger([[1, 3]])])).toBe(3)
  expect(new Arrivals().report([ledger([[1, 3]])]).lost).toBe(3)
})

test('a reading that was sent but not acknowledged may be absent', () => {
  const report = arrived({ id: 1, seq: 1 }).report([ledger([[1, 1]], { unacknowledged: [[2, 3]] })])
  expect(report).toMatchObject({ lost: 0, absent: 2, isFaultless: true })
})

test('a reading the device never sent is unknown', () => {
  const report = arrived({ id: 1, seq: 1 }, { id: 2, seq: 9 }).report([ledger([[1, 1]])])
  expect(report).toMatchObject({ unknown: 1, isFaultless: false })
  expect(report.devices[0]?.unknown).toEqual([[9, 9]])
})

test('a device without a ledger is unknown altogether', () => {
  const report = arrived({ id: 1, seq: 1, device: 'stranger' }).report([])
  expect(report).toMatchObject({ unknown: 1, isFaultless: false })
})

test('the same id again is harmless, counted, and no breach of order', () => {
  const report = arrived({ id: 1, seq: 1 }, { id: 2, seq: 2 }, { id: 1, seq: 1 }, { id: 2, seq: 2 }).report([
    ledger([[1, 2]]),
  ])
  expect(report).toMatchObject({ deliveries: 4, received: 2, repeatedIds: 2, resentByDevice: 0, isFaultless: true })
})

test("a device's own resend under another id is harmless if it is marked", () => {
  const report = arrived(
    { id: 1, seq: 1 },
    { id: 2, seq: 2 },
    { id: 3, seq: 1, dup: true },
    { id: 4, seq: 2, dup: true },
  ).report([ledger([[1, 2]])])
  expect(report).toMatchObject({ received: 2, resentByDevice: 2, isFaultless: true })
  expect(report.unmarkedDuplicates.count).toBe(0)
})

test('the marked resend may be the first to arrive, or the only one', () => {
  const report = arrived(
    { id: 1, seq: 1, replay: true },
    { id: 3, seq: 2, dup: true },
    { id: 2, seq: 2, replay: true },
    { id: 4, seq: 3, dup: true },
  ).report([ledger([[1, 3]])])
  expect(report).toMatchObject({ received: 3, resentByDevice: 1, isFaultless: true })
})

test('a reading under two ids of which none is marked as resent is an error', () => {
  const report = arrived({ id: 1, seq: 1 }, { id: 2, seq: 1 }).report([ledger([[1, 1]])])
  expect(report.unmarkedDuplicates).toEqual({
    count: 1,
    first: [{ device: 'm1', sequence: 1, id: `gw-1/${EPOCH_A}/2` }],
  })
  expect(report.isFaultless).toBe(false)
})

test('live messages may overtake replayed ones, but each class keeps its order', () => {
  const good = arrived(
    { id: 5, seq: 5 },
    { id: 1, seq: 1, replay: true },
    { id: 6, seq: 6 },
    { id: 2, seq: 2, replay: true },
  )
  expect(good.report([ledger([[1, 2]], { unacknowledged: [[5, 6]] })])).toMatchObject({
    live: 2,
    replayed: 2,
    isFaultless: true,
  })

  const bad = arrived({ id: 2, seq: 2, replay: true }, { id: 1, seq: 1, replay: true }).report([ledger([[1, 2]])])
  expect(bad.orderViolations.live.count).toBe(0)
  expect(bad.orderViolations.replay.first.map(violation => violation.reason)).toEqual([
    'id went back',
    'sequence went back',
  ])
  expect(bad.isFaultless).toBe(false)
})

test('a live message that arrives behind a later one of its topic is a violation that names both', () => {
  const report = arrived({ id: 2, seq: 2 }, { id: 1, seq: 1 }).report([ledger([[1, 2]])])
  expect(report.orderViolations.live.first[0]).toEqual({
    device: 'm1',
    topic: 'sensors/m1/energy',
    class: 'live',
    previousId: `gw-1/${EPOCH_A}/2`,
    id: `gw-1/${EPOCH_A}/1`,
    previousSequence: 2,
    sequence: 1,
    reason: 'id went back',
  })
})

test('ids in order with sequence numbers out of order are a violation too', () => {
  const report = arrived({ id: 1, seq: 2 }, { id: 2, seq: 1 }).report([ledger([[1, 2]])])
  expect(report.orderViolations.live.first.map(violation => violation.reason)).toEqual(['sequence went back'])
})

test('a resend by the device must keep the order of its own acceptance', () => {
  const report = arrived({ id: 1, seq: 1 }, { id: 9, seq: 1, dup: true }, { id: 8, seq: 2, dup: true }).report([
    ledger([[1, 2]]),
  ])
  expect(report.orderViolations.live.first.map(violation => violation.reason)).toEqual(['id went back'])
})

test('different devices have no order among each other', () => {
  const report = arrived({ id: 2, seq: 1, device: 'm2' }, { id: 1, seq: 1 }).report([
    ledger([[1, 1]]),
    ledger([[1, 1]], { device: 'm2', topic: 'sensors/m2/energy' }),
  ])
  expect(report.isFaultless).toBe(true)
})

test('a restarted gateway begins a new epoch with lower numbers, and the old one may not come back', () => {
  const good = arrived({ id: 70, seq: 1 }, { id: 1, seq: 2, epoch: EPOCH_B })
  expect(good.report([ledger([[1, 2]])])).toMatchObject({ isFaultless: true, gateways: [{ epochs: 2, received: 2 }] })
  const bad = arrived({ id: 70, seq: 1 }, { id: 1, seq: 2, epoch: EPOCH_B }, { id: 71, seq: 3 }).report([
    ledger([[1, 3]]),
  ])
  expect(bad.orderViolations.live.first.map(violation => violation.reason)).toEqual(['epoch came back'])
})

test('a retried message has lost its place and is not held to the order', () => {
  const report = arrived({ id: 2, seq: 2 }, { id: 1, seq: 1, retried: true }, { id: 3, seq: 3 }).report([
    ledger([[1, 3]]),
  ])
  expect(report).toMatchObject({ retried: 1, isFaultless: true })
})

test.each<[string, Partial<Arrival>]>([
  ['no message_id', { messageId: undefined }],
  ['a message_id of another form', { messageId: 'gw-1/7' }],
  ['no topic header', { topic: undefined }],
  ["another client id than the payload's device", { clientId: 'm2' }],
  ['a payload that is not JSON', { payload: Buffer.from('21.5') }],
  ['a payload cut short', { payload: Buffer.from('{"device":"m1","seq":') }],
  ['a payload without sequence number', { payload: Buffer.from('{"device":"m1"}') }],
])('a message with %s is malformed and received by nobody', (_, fault) => {
  const arrivals = new Arrivals()
  arrivals.note({ ...arrival({ id: 1, seq: 1 }), ...fault })
  const report = arrivals.report([ledger([[1, 1]])])
  expect(report).toMatchObject({ received: 0, lost: 1, isFaultless: false })
  expect(report.malformed.count).toBe(1)
})

test('what is noted is limited, what is counted is not', () => {
  const arrivals = new Arrivals()
  for (let id = 1; id <= 500; id++) arrivals.note(arrival({ id, seq: 1 }))
  const { unmarkedDuplicates } = arrivals.report([ledger([[1, 1]])])
  expect(unmarkedDuplicates.count).toBe(499)
  expect(unmarkedDuplicates.first).toHaveLength(100)
})

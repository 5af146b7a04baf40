/*
 * Writes the golden store of the present format, test/data/store-vN: `node scripts/golden-store.ts`. Run it once per format version and check in what
 * it wrote: every later version of Sluice has to open it (test/unit/store/golden.test.ts says what is in it).
 */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { encodeRecord, type Message } from '../src/model/message.ts'
import { FORMAT_VERSION } from '../src/store/format.ts'
import { StatePrefix } from '../src/store/keys.ts'
import { Store } from '../src/store/store.ts'
import type { SegmentWrite } from '../src/store/types.ts'

const target = join(import.meta.dirname, `../test/data/store-v${FORMAT_VERSION}`)
const directory = await mkdtemp(join(tmpdir(), 'sluice-golden-'))
const options = {
  directory,
  gateway: 'gw-golden',
  diskBytes: 1024 ** 3,
  // No ballast: a floor this high leaves no room for one.
  diskFreeMinBytes: 1024 ** 5,
  log: pino({ level: 'silent' }),
  wallMs: () => 1_800_000_000_000,
  monotonicMs: () => 5000,
}

const message: Message = {
  exchange: 'mqtt',
  key: 'sensors/7/temperature',
  qos: 1,
  retain: false,
  dup: false,
  priority: 0,
  clientId: 'device-7',
  user: 'meter',
  expiryMs: null,
  propertiesTag: 0,
  properties: Buffer.alloc(0),
  payload: Buffer.alloc(0),
}

function segment(
  queue: number,
  first: number,
  seqs: (number | null)[],
  { isShared = false, note = 0 } = {},
): SegmentWrite {
  const offsets = new Uint32Array(seqs.length)
  const present = new Uint8Array(Math.ceil(seqs.length / 8))
  const records: Buffer[] = []
  let at = 0
  for (const [entry, seq] of seqs.entries()) {
    if (seq === null) continue
    const payload = Buffer.from(JSON.stringify({ seq }))
    const expiryMs = seq % 2 === 0 ? null : 60_000
    const record = encodeRecord({ ...message, payload, expiryMs }, { seq, boot: 1, acceptedAt: 5000 + seq, clock: 0 })
    present[entry >> 3] = (present[entry >> 3] ?? 0) | (1 << (entry & 7))
    offsets[entry] = at
    at += record.length
    records.push(record)
  }
  const count = seqs.length
  const shared = new Uint8Array(count).fill(isShared ? 1 : 0)
  return {
    queue,
    part: 1,
    first,
    count,
    present,
    bytes: Buffer.concat(records),
    offsets,
    notes: new Uint8Array(count).fill(note),
    shared,
  }
}

const ledger = Buffer.from([StatePrefix.ledger, 0, 0, 0, 1])

// First start, closed in order: a checkpoint. Commit 1 is the boot record.
const first = await Store.open(options)
first.nameQueue(1, 'telemetry')
first.nameQueue(2, 'alarms')
first.nameQueue(3, 'history')
await first.commit({
  segments: [segment(1, 0, [0, 1, null, 3], { note: 1 })],
  marks: [],
  changes: [],
  acceptedBytes: 0,
})
await first.commit({
  segments: [segment(2, 0, [10, 11], { isShared: true }), segment(3, 0, [10, 11], { isShared: true })],
  marks: [{ queue: 1, ref: { commit: 2, part: 1 }, settled: Uint8Array.of(0b0101), isComplete: false }],
  changes: [{ key: ledger, value: Buffer.from('first') }],
  acceptedBytes: 0,
})
await first.close()

// Second start, never closed: deltas to replay. Commit 4 is the boot record.
const second = await Store.open(options)
second.nameQueue(1, 'telemetry')
await second.commit({
  segments: [segment(1, 4, [4, 5])],
  marks: [{ queue: 2, ref: { commit: 3, part: 1 }, settled: Uint8Array.of(0b11), isComplete: true }],
  changes: [{ key: ledger, value: Buffer.from('second') }],
  acceptedBytes: 0,
})
await rm(target, { recursive: true, force: true })
await cp(directory, target, { recursive: true, filter: source => !/\/(LOCK|LOG|LOG\.old|running)$/.test(source) })
await second.close()
await rm(directory, { recursive: true })

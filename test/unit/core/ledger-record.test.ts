import { describe, expect, it } from 'vitest'
import { decodeLedgerRecord, encodeLedgerRecord, type LedgerRecord } from '../../../src/core/ledger-record.ts'
import { StatePrefix } from '../../../src/store/keys.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const IDLE: LedgerRecord = {
  figures: { accepted: 300, settled: 290, queued: 10, expired: 0, dropped: {}, dead_lettered: {} },
  owed: 0,
  lanes: [{ messages: 10, bytes: 3000, next: 300, delivered: 290, last: { commit: 129, part: 1 } }],
}

const LARGE: LedgerRecord = {
  figures: {
    accepted: Number.MAX_SAFE_INTEGER,
    settled: 2 ** 48,
    queued: 2 ** 32,
    expired: 127,
    dropped: { overflow: 128, session_ended: 2 ** 40 },
    dead_lettered: { delivery_limit: 1 },
  },
  owed: 64,
  lanes: Array.from({ length: 16 }, (_, n) => ({
    messages: 2 ** 40 + n,
    bytes: 2 ** 50,
    next: 2 ** 48 - 1,
    delivered: n,
    last: n % 2 === 0 ? null : { commit: 2 ** 45, part: 65_535 },
  })),
}

describe('a ledger record', () => {
  // On disk: if this changes, earlier stores are misread.
  it('of an idle queue takes 26 bytes', () => {
    expect(encodeLedgerRecord(IDLE).toString('hex')).toBe('01ac02a2020a0000000001' + '0ab817ac02a202810101')
    expect(decodeLedgerRecord(encodeLedgerRecord(IDLE))).toEqual(IDLE)
  })

  it('keeps figures of any size, every reason and every lane', () => {
    expect(decodeLedgerRecord(encodeLedgerRecord(LARGE))).toEqual(LARGE)
  })

  it('of a later version keeps the gateway from starting', async () => {
    await using directory = await tempDir()
    const key = Buffer.from([StatePrefix.ledger, 0, 0, 0, 9])
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.schedule.change({ key, value: Buffer.of(2, 0, 0) })
    }
    await expect(CoreUnderTest.open(directory.path)).rejects.toMatchObject({
      code: 'STORE_FORMAT_UNKNOWN',
      facts: { version: 2 },
    })
  })
})

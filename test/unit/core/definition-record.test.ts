import { expect, test } from 'vitest'
import { StatePrefix } from '../../../src/store/keys.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

test.each(['q', 's', 'x', 'b'])('a start refuses a definition d%s that a later version wrote', async kind => {
  await using directory = await tempDir()
  const key = Buffer.from([StatePrefix.definition, kind.charCodeAt(0), 0, 0, 0, 9])
  const value = Buffer.from('{"version":2,"shape":"nobody knows"}')
  {
    await using core = await CoreUnderTest.open(directory.path)
    await core.schedule.change({ key, value })
  }
  await expect(CoreUnderTest.open(directory.path)).rejects.toMatchObject({
    code: 'STORE_FORMAT_UNKNOWN',
    facts: { version: 2 },
  })
})

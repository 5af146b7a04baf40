import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { openStore, readQueue } from '../support/store-kit.ts'
import { tempDir } from '../support/temp-dir.ts'

test('a data directory in use by another process is refused in words, and that process notices nothing', async () => {
  await using directory = await tempDir()
  const child = spawn(process.execPath, ['test/support/committer.ts', directory.path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let committed = 0
  const lines = createInterface({ input: child.stdout })
  lines.on('line', line => {
    if (line.startsWith('committed')) committed++
  })
  try {
    await once(lines, 'line')
    for (let attempt = 0; attempt < 3; attempt++) {
      const opening = openStore(directory.path)
      await expect(opening).rejects.toMatchObject({ code: 'STORE_LOCKED', facts: { directory: directory.path } })
      await expect(opening).rejects.toThrow(/is in use by another process.*Stop that one, or/)
    }
    const before = committed
    while (committed < before + 5) await once(lines, 'line')
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
  await using store = await openStore(directory.path)
  expect(store.recovery).toMatchObject({ lostCommits: 0, lostRecords: 0, isStateRebuilt: false, findings: [] })
  expect((await readQueue(store, 1)).damaged).toBe(0)
})

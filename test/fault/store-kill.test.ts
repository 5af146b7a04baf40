import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { numbers, openStore, readQueue } from '../support/store-kit.ts'
import { tempDir } from '../support/temp-dir.ts'

/** 20 here; the long run of `npm run prove` sets 200. */
const KILLS = Number(process.env.SLUICE_KILLS ?? 20)

interface Life {
  readonly committed: number[]
  /** Announced before the commit: may be settled. */
  readonly settling: number[]
  readonly settled: number[]
  readonly opened: string
}

/** Runs the committer until it has committed `commits` times and then some, kills it, and says what it had promised. */
async function liveAndDie(directory: string, commits: number, pauseMs: number): Promise<Life> {
  const child = spawn(process.execPath, ['test/support/committer.ts', directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const life = { committed: [] as number[], settling: [] as number[], settled: [] as number[], opened: '' }
  let lines = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, from = '', count = ''] = line.split(' ')
    const seqs = numbers(Number(from), Number(from) + Number(count) - 1)
    if (what === 'open') life.opened = line
    else if (what === 'settling') life.settling.push(...seqs)
    else if (what === 'settled') life.settled.push(...seqs)
    else if (what === 'committed') {
      life.committed.push(...seqs)
      if (++lines === commits) setTimeout(() => child.kill('SIGKILL'), pauseMs)
    }
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  expect(child.signalCode).toBe('SIGKILL')
  return life
}

test(
  `a process that commits in a loop and is killed ${KILLS} times at random moments has lost nothing it had committed`,
  async () => {
    await using directory = await tempDir()
    const committed = new Set<number>()
    const settling = new Set<number>()
    const settled = new Set<number>()
    let random = 12_345
    for (let kill = 0; kill < KILLS; kill++) {
      random = (random * 1_103_515_245 + 12_345) % 2 ** 31
      const life = await liveAndDie(directory.path, 1 + (random % 60), random % 17)
      for (const seq of life.committed) committed.add(seq)
      for (const seq of life.settling) settling.add(seq)
      for (const seq of life.settled) settled.add(seq)
      expect(life.opened).toMatch(/^open 0 false /)
    }
    await using store = await openStore(directory.path)
    expect(store.recovery).toMatchObject({ lostCommits: 0, lostRecords: 0, isStateRebuilt: false, findings: [] })
    const { seqs, damaged } = await readQueue(store, 1)
    expect(damaged).toBe(0)
    const found = new Set(seqs)
    expect(found.size).toBe(seqs.length)
    expect([...committed].filter(seq => !settling.has(seq) && !found.has(seq))).toEqual([])
    expect([...settled].filter(seq => found.has(seq))).toEqual([])
    const both = (await readQueue(store, 2)).seqs
    expect(both.length).toBeGreaterThan(0)
  },
  KILLS * 5000,
)

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Random } from '../../../firmware-sim/random.ts'
import { numbers, openStore, readQueue } from '../../support/store-kit.ts'

const LONGEST_LIFE_COMMITS = 60
/** The kill falls somewhere into the commits after those. */
const LONGEST_PAUSE_MS = 17

/** What the lives of test/support/committer.ts on one directory had promised: sequence numbers. */
export interface Promised {
  readonly committed: Set<number>
  /** Announced before the commit: may be settled. */
  readonly settling: Set<number>
  readonly settled: Set<number>
}

export const nothingPromised = (): Promised => ({ committed: new Set(), settling: new Set(), settled: new Set() })

/** Runs the committer for a while, kills it (SIGKILL), adds what it had promised, and gives the line it said when it had opened the store. */
export async function liveAndDie(
  directory: string,
  { promised, random, environment = {} }: { promised: Promised; random: Random; environment?: NodeJS.ProcessEnv },
): Promise<string> {
  const commits = 1 + Math.floor(random.next() * LONGEST_LIFE_COMMITS)
  const pauseMs = random.between(0, LONGEST_PAUSE_MS)
  const child = spawn(process.execPath, ['test/support/committer.ts', directory], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let opened = ''
  let seen = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const [what = '', from, count] = line.split(' ')
    if (what === 'open') {
      opened = line
      continue
    }
    if (what !== 'committed' && what !== 'settling' && what !== 'settled') throw new Error(`the committer says ${line}`)
    for (const seq of numbers(Number(from), Number(from) + Number(count) - 1)) promised[what].add(seq)
    if (what === 'committed' && ++seen === commits) setTimeout(() => child.kill('SIGKILL'), pauseMs)
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  if (child.signalCode !== 'SIGKILL') throw new Error(`the committer ended with status ${child.exitCode}`)
  return opened
}

export interface Kept {
  /** Committed, never settled, and not there. */
  readonly lost: number[]
  /** Settled, and there again. */
  readonly revived: number[]
  /** There twice. */
  readonly doubled: number
  /** Records the store says it has lost or can't read. */
  readonly reported: number
  readonly findings: readonly string[]
}

/** Opens the store and compares what is in it with what was promised. */
export async function keptOf(directory: string, { committed, settling, settled }: Promised): Promise<Kept> {
  await using store = await openStore(directory)
  const { seqs, damaged } = await readQueue(store, 1)
  const both = await readQueue(store, 2)
  const found = new Set(seqs)
  return {
    lost: [...committed].filter(seq => !settling.has(seq) && !found.has(seq)),
    revived: [...settled].filter(seq => found.has(seq)),
    doubled: seqs.length - found.size,
    reported: store.recovery.lostRecords + damaged + both.damaged,
    findings: store.recovery.findings,
  }
}

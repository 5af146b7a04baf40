import { readFile } from 'node:fs/promises'

const SAMPLE_PERIOD_MS = 200

/** Resident memory of a process, bytes: all of it, and what no file backs. */
export interface Residence {
  readonly total: number
  readonly anonymous: number
}

/** Highest values seen since the start. */
export interface MemoryWatch {
  readonly peak: Residence
  stop(): void
}

export async function residence(pid: number): Promise<Residence> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1]) * 1024
  return { total: field('Rss'), anonymous: field('Anonymous') }
}

/** Samples a process five times a second until stopped or gone. */
export function watchMemory(pid: number): MemoryWatch {
  const peak = { total: 0, anonymous: 0 }
  const sample = async () => {
    try {
      const { total, anonymous } = await residence(pid)
      peak.total = Math.max(peak.total, total)
      peak.anonymous = Math.max(peak.anonymous, anonymous)
    } catch {
      // The process is gone.
      clearInterval(timer)
    }
  }
  const timer = setInterval(() => void sample(), SAMPLE_PERIOD_MS)
  void sample()
  return { peak, stop: () => clearInterval(timer) }
}

import { readFileSync } from 'node:fs'

/* What processes use of the machine, as the kernel counts it. */

export interface Usage {
  /** Share of one core that each process used meanwhile; the broker's is null where its pid was not given. */
  readonly brokerBusy: number | null
  readonly generatorBusy: number
  /** Cores that everything else on the machine used meanwhile: above 0.1 the other figures are noise. Null where there is no /proc. */
  readonly othersBusy: number | null
}

export interface Mark {
  readonly atMs: number
  readonly generatorCpuS: number
  readonly brokerCpuS: number | null
  readonly othersCpuS: number | null
}

/** Unit of the times in /proc/PID/stat. */
const TICKS_PER_S = 100

/** Processor time used so far. */
export function mark(brokerPid: number | null): Mark {
  const { user, system } = process.cpuUsage()
  const generatorCpuS = (user + system) / 1e6
  const brokerCpuS = brokerPid === null ? null : cpuSeconds(brokerPid)
  const machineCpuS = machineCpuSeconds()
  return {
    atMs: performance.now(),
    brokerCpuS,
    generatorCpuS,
    othersCpuS: brokerCpuS === null || machineCpuS === null ? null : machineCpuS - brokerCpuS - generatorCpuS,
  }
}

export function usageBetween(start: Mark, end: Mark): Usage {
  const busy = (from: number | null, to: number | null) =>
    from === null || to === null ? null : ((to - from) * 1000) / (end.atMs - start.atMs)
  const others = busy(start.othersCpuS, end.othersCpuS)
  return {
    brokerBusy: busy(start.brokerCpuS, end.brokerCpuS),
    generatorBusy: busy(start.generatorCpuS, end.generatorCpuS) ?? Number.NaN,
    othersBusy: others === null ? null : Math.max(0, others),
  }
}

/** Processor time a process has used; null where there is no /proc or the process is gone. */
function cpuSeconds(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // Fields after the command's closing bracket: state is the first, utime the 12th, stime the 13th.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S
  } catch {
    return null
  }
}

/** Processor time used on all cores, by whomever, and taken by the host; null where there is no /proc. */
function machineCpuSeconds(): number | null {
  try {
    const [line = ''] = readFileSync('/proc/stat', 'latin1').split('\n')
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line.split(/\s+/).slice(1).map(Number)
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S
  } catch {
    return null
  }
}

/** Resident memory of a process that stands behind no file; null where there is no /proc. */
export function anonymousBytes(pid: number): number | null {
  try {
    const match = /^RssAnon:\s+(?<kilobytes>\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))
    return Number(match?.groups?.kilobytes) * 1024
  } catch {
    return null
  }
}

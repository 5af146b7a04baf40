import type { Report } from '../../../firmware-sim/arrivals.ts'

/** What a report blames the gateway for, with the first examples, in one line. */
export function faultsOf(report: Report): string {
  const { lost, unknown, unmarkedDuplicates, orderViolations, malformed } = report
  const { live, replay } = orderViolations
  const faults = [
    lost > 0 && `${lost} lost: ${JSON.stringify(report.devices.filter(device => device.lost.length > 0).slice(0, 3))}`,
    unknown > 0 && `${unknown} that nobody sent`,
    unmarkedDuplicates.count > 0 &&
      `${unmarkedDuplicates.count} under a second id: ${JSON.stringify(unmarkedDuplicates.first.slice(0, 3))}`,
    live.count > 0 && `${live.count} live ones out of order: ${JSON.stringify(live.first.slice(0, 3))}`,
    replay.count > 0 && `${replay.count} replayed ones out of order: ${JSON.stringify(replay.first.slice(0, 3))}`,
    malformed.count > 0 && `${malformed.count} malformed: ${malformed.first.slice(0, 3).join(' ')}`,
  ]
  return faults.filter(fault => fault !== false).join('; ') || 'no fault'
}

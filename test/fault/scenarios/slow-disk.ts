import { realpath } from 'node:fs/promises'
import { contendersOf, type Measurement, measure } from '../../../scripts/bench/measure.ts'
import { scenarioNamed } from '../../../scripts/bench/scenarios.ts'
import { slowDisk } from '../../support/lossy-disk.ts'
import { SLUICE } from '../support/gateway.ts'

/** On a disk, not in memory. */
const DISK = '/var/tmp'

/** Durable ingress, 200 messages in flight, where each fdatasync takes as much longer. */
export async function slowDiskIngress({
  delayMs,
  seconds,
}: {
  delayMs: number
  seconds: number
}): Promise<Measurement> {
  const scenario = scenarioNamed('durable-ingress')
  const contender = contendersOf(scenario).find(({ broker }) => broker === 'sluice')
  if (contender === undefined) throw new TypeError('Sluice is not measured')
  const directory = await realpath(DISK)
  await using disk = await slowDisk(directory, delayMs)
  const { environment } = disk
  return await measure({ scenario, contender, warmUpS: 1, seconds, directory, sluice: SLUICE, environment })
}

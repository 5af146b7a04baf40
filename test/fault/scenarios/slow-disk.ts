import { realpath } from 'node:fs/promises'
import type { Measurement } from '../../../scripts/bench/measure.ts'
import { slowDisk } from '../../support/lossy-disk.ts'
import { measureSluice } from '../support/measure-sluice.ts'

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
  const directory = await realpath(DISK)
  await using disk = await slowDisk(directory, delayMs)
  return await measureSluice('durable-ingress', { seconds, directory, environment: disk.environment })
}

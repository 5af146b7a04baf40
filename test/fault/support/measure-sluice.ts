import { contendersOf, type Measurement, measure } from '../../../scripts/bench/measure.ts'
import { scenarioNamed } from '../../../scripts/bench/scenarios.ts'
import { SLUICE } from './gateway.ts'

export interface SluiceOptions {
  readonly seconds: number
  /** On a disk, not in memory. */
  readonly directory?: string
  readonly environment?: NodeJS.ProcessEnv
}

/** Sluice alone in a scenario of the bench. */
export async function measureSluice(
  name: string,
  { seconds, directory = '/var/tmp', environment = {} }: SluiceOptions,
): Promise<Measurement> {
  const scenario = scenarioNamed(name)
  const contender = contendersOf(scenario).find(({ broker }) => broker === 'sluice')
  if (contender === undefined) throw new TypeError('Sluice is not measured')
  return await measure({ scenario, contender, warmUpS: 1, seconds, directory, sluice: SLUICE, environment })
}

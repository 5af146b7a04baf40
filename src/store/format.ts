import { BrokerError } from '../model/error.ts'
import type { DatabaseName, OpenedDatabase } from './database.ts'
import { LOG_FORMAT_KEY, STATE_FORMAT_KEY } from './keys.ts'
import { levelErrorCode } from './level.ts'
import { sealValue, unsealValue } from './state.ts'

/** Both databases carry it; a change of any WARNING block in this folder raises it. */
export const FORMAT_VERSION = 1

/** Throws BrokerError STORE_FORMAT_UNKNOWN if another version wrote this database; a missing or damaged mark is written anew. */
export async function checkFormat(name: DatabaseName, { level, location }: OpenedDatabase): Promise<void> {
  const key = name === 'log' ? LOG_FORMAT_KEY : STATE_FORMAT_KEY
  const sealed = await level.get(key).catch((error: unknown) => {
    if (levelErrorCode(error) === 'LEVEL_CORRUPTION') return undefined
    throw error
  })
  const found = sealed === undefined ? null : unsealValue(key, sealed)
  const version = found === null ? null : /^sluice-(?:log|state) (\d+)$/.exec(found.toString('latin1'))?.[1]
  if (version === String(FORMAT_VERSION)) return
  if (found !== null) {
    throw new BrokerError(
      'STORE_FORMAT_UNKNOWN',
      `The store in ${location} has format ${version ?? JSON.stringify(found.toString('latin1').slice(0, 40))}, this version of Sluice reads format ${FORMAT_VERSION}: run the version that wrote it, or choose another data_dir`,
      { facts: { location } },
    )
  }
  await level.put(key, sealValue(key, Buffer.from(`sluice-${name} ${FORMAT_VERSION}`)), { sync: true })
}

/** Loads LevelDB's addon as the executable does, from the directories in argv, and tells as JSON what became of it. */

import { existsSync, readFileSync } from 'node:fs'
import { loadAddon } from '../../src/addon.ts'
import { readAsset } from '../../src/assets.ts'

const MAPS = '/proc/self/maps'

try {
  const addon = loadAddon({ bytes: readAsset('classic-level.node'), directories: process.argv.slice(2) })
  const maps = existsSync(MAPS) ? readFileSync(MAPS, 'utf8') : ''
  // An unnamed file is shown as "/dev/shm/#1234 (deleted)".
  const mappedFrom = maps.match(/\/\S*(?=\/[^/\s]+ \(deleted\))/)?.[0] ?? null
  console.log(
    JSON.stringify({
      opens: typeof addon.db_open === 'function',
      mappedFrom,
      unnamed: /\/#\d+ \(deleted\)/.test(maps),
    }),
  )
} catch (error) {
  console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }))
}

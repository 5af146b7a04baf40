/* One attacker, in a process of its own: `node attack-process.ts NAME TARGET`. It ends with status 0 if it got the documented answer, else it says what it got. */

import { Arena, type Target } from './attacker.ts'
import { ATTACKERS } from './attackers.ts'

const [name = '', json = ''] = process.argv.slice(2)
const attacker = ATTACKERS.find(candidate => candidate.name === name)
if (attacker === undefined) throw new Error(`there is no attacker ${name}`)
const target: Target = JSON.parse(json)
const arena = new Arena(target)
try {
  await attacker.attack(arena)
} catch (error) {
  process.stderr.write(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
} finally {
  arena.close()
}

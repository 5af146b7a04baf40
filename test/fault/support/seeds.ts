import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'

/** Seeds that once failed, a line each: `<scenario> <seed>`. The short forms replay them. */
const SEEDS_FILE = resolve(import.meta.dirname, '../seeds.txt')
const FIRST_SEED = 1

/** The seeds a scenario is run with: one, and those it once failed on. */
export function seedsOf(scenario: string): number[] {
  const failed = existsSync(SEEDS_FILE) ? readFileSync(SEEDS_FILE, 'utf8') : ''
  const seeds = [...failed.matchAll(/^(\S+) (\d+)$/gm)].filter(([, name]) => name === scenario)
  return [...new Set([FIRST_SEED, ...seeds.map(([, , seed]) => Number(seed))])]
}

export function rememberFailedSeed(scenario: string, seed: number): void {
  if (!seedsOf(scenario).includes(seed)) appendFileSync(SEEDS_FILE, `${scenario} ${seed}\n`)
}

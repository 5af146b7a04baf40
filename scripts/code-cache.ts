import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/*
 * V8's code cache for the executable: what it compiled while a configuration was read and the gateway's modules were loaded, a good part
 * of a start. Functions that did not run are compiled when they are called, as ever. A gateway that really ran would warm up more, but
 * never twice the same bytes.
 */

const RUNS_AT_MOST = 5

/** A bit of everything a configuration usually has. */
const SAMPLE = `
gateway: { id: sample }
data_dir: /var/lib/sluice
listeners:
  mqtt: { host: 127.0.0.1, port: 1883 }
limits:
  clients: 100
  memory: 32MiB
upstreams:
  central:
    urls: [ "amqp://guest:guest@127.0.0.1:5672" ]
    reconnect: { first: 1s, max: 10s }
routes:
  all:
    from: [ "sensors/#" ]
    upstream: central
    exchange: { name: all, type: topic, declare: true }
    limits: { age: 7d }
log: { level: info }
`

/**
 * Writes `code-cache` into a directory that holds the other assets for this machine's architecture. Throws when it can't be made twice the
 * same.
 */
export function makeCodeCache(directory: string, v8Flags: readonly string[]): void {
  writeFileSync(join(directory, 'sample.yaml'), SAMPLE)
  // The order of the cache follows V8's hash seed, and a few of its bytes what V8's other threads did meanwhile. The executable takes a cache
  // made with these two flags though it runs without them.
  const args = [...v8Flags, '--random-seed=1', '--predictable', join(import.meta.dirname, 'warm-up.ts'), directory]
  let before: Buffer | null = null
  for (let run = 0; run < RUNS_AT_MOST; run++) {
    // Nothing of this machine: a variable could change what runs.
    execFileSync(process.execPath, args, { env: {}, stdio: 'pipe' })
    const cache = readFileSync(join(directory, 'code-cache'))
    if (before?.equals(cache)) return
    before = cache
  }
  throw new Error(`V8's code cache came out differently in each of ${RUNS_AT_MOST} runs`)
}

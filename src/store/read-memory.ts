/*
 * Memory for what is read back from disk. A queue that empties reads thousands of segments a second. Fresh memory for each would keep the collector busy, which
 * counts what lies outside its heap and goes through all of the heap to find out what may go: a third of the time of a session that gets its backlog.
 */

/** Sizes are multiples of this, so that little of it stays empty. */
const STEP_BYTES = 16 * 1024
/** Larger segments, which hold a single message, get memory of their own. */
const STEPS = 16
/** Smaller ones, too: half of a step would be empty. */
const LEAST_BYTES = STEP_BYTES / 2
/** Given back and kept for the next, of all sizes. */
const POOLED_BYTES = 2 * 1024 * 1024

let pooledBytes = 0
const pools: Buffer[][] = Array.from({ length: STEPS + 1 }, () => [])

/** Memory for at least so many bytes; its contents are undefined. */
export function takeMemory(bytes: number): Buffer {
  const steps = Math.ceil(bytes / STEP_BYTES)
  if (steps > STEPS || bytes < LEAST_BYTES) return Buffer.allocUnsafeSlow(bytes)
  const pooled = pools[steps]?.pop()
  if (pooled === undefined) return Buffer.allocUnsafeSlow(steps * STEP_BYTES)
  pooledBytes -= pooled.length
  return pooled
}

/** Takes memory back that nobody looks at any more. */
export function giveMemory(memory: Buffer): void {
  const steps = memory.length / STEP_BYTES
  const pool = steps > 0 ? pools[steps] : undefined
  if (pool === undefined || pooledBytes + memory.length > POOLED_BYTES) return
  pooledBytes += memory.length
  pool.push(memory)
}

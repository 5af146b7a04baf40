import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TempDir extends AsyncDisposable {
  readonly path: string
  /** Deletes the directory with all that is in it; also done by `await using`. */
  remove(): Promise<void>
}

/** A new private directory: `await using directory = await tempDir()`; `on`: somewhere else than where temporary files are. */
export async function tempDir({ on = tmpdir() }: { on?: string } = {}): Promise<TempDir> {
  const path = await mkdtemp(join(on, 'sluice-test-'))
  const remove = () => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
  return { path, remove, [Symbol.asyncDispose]: remove }
}

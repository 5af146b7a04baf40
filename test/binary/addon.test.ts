import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BARE_ENVIRONMENT, BUILD_DEADLINE_MS, placeExecutable } from '../support/executable.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { type Mount, mounted } from '../support/mount-namespace.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const TEST_DEADLINE_MS = 60_000

let place: TempDir
let executable: string

beforeAll(async () => {
  place = await tempDir()
  executable = await placeExecutable(place.path)
}, BUILD_DEADLINE_MS)

afterAll(() => place.remove())

/** A working directory with the directories the loader tries in it; `spoilt` are mounted noexec. /dev/shm is the real one or spoilt. */
async function world(spoilt: readonly ('shm' | 'runtime' | 'tmp' | 'data')[]) {
  const directory = await tempDir()
  const paths = {
    shm: '/dev/shm',
    runtime: join(directory.path, 'runtime'),
    tmp: join(directory.path, 'tmp'),
    data: join(directory.path, 'data'),
  }
  for (const name of ['runtime', 'tmp', 'data'] as const) await mkdir(paths[name])
  const mounts: Mount[] = spoilt.map(name => ({ directory: paths[name], options: 'noexec' }))
  const { program, args } = mounted(mounts, [executable])
  return {
    directory,
    paths,
    command: [program, ...args],
    environment: { ...BARE_ENVIRONMENT, PATH: '/usr/bin:/bin', XDG_RUNTIME_DIR: paths.runtime, TMPDIR: paths.tmp },
  }
}

/** Directory of the file from which the process has mapped the unlinked addon. */
async function addonDirectory(pid: number): Promise<string | undefined> {
  const maps = await readFile(`/proc/${pid}/maps`, 'utf8')
  return /r-xp .* (\/\S+)\/[^/\s]+ \(deleted\)$/m.exec(maps)?.[1]
}

describe('the executable where directories are mounted noexec', () => {
  test.each([
    ['shm', []],
    ['runtime', ['shm']],
    ['tmp', ['shm', 'runtime']],
    ['data', ['shm', 'runtime', 'tmp']],
  ] as const)(
    'takes LevelDB from %s when these are noexec: %j',
    { timeout: TEST_DEADLINE_MS },
    async (chosen, spoilt) => {
      const { directory, paths, command, environment } = await world(spoilt)
      await using _ = directory
      await using gateway = await startGatewayProcess({ command, directory: directory.path, environment })
      expect(await addonDirectory(gateway.pid)).toBe(paths[chosen])
      await gateway.kill()
      expect(await readdir(paths.runtime)).toEqual([])
      expect(await readdir(paths.tmp)).toEqual([])
      expect((await readdir(paths.data)).filter(name => name.endsWith('.node'))).toEqual([])
    },
  )

  test('ends with status 1 and one clear line where nothing allows executing', {
    timeout: TEST_DEADLINE_MS,
  }, async () => {
    const { directory, paths, command, environment } = await world(['shm', 'runtime', 'tmp', 'data'])
    await using _ = directory
    const [program = '', ...args] = command
    const { status, stderr } = await new Promise<{ status: unknown; stderr: string }>(resolve =>
      execFile(
        program,
        [...args, 'run', '--data', paths.data, '--set', 'listeners.mqtt.port=0', '--set', 'http.port=0'],
        { env: environment, cwd: directory.path },
        (error, _stdout, stderr) => resolve({ status: error?.code ?? 0, stderr }),
      ),
    )
    expect(stderr).toMatch(
      /^sluice: LevelDB can't be loaded: .*\/dev\/shm \(mounted noexec\), .*\/runtime \(mounted noexec\), .*\/tmp \(mounted noexec\), .*\/data \(mounted noexec\)\. Set TMPDIR .*\n$/,
    )
    expect(status).toBe(1)
  })
})

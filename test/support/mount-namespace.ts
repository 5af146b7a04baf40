import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A file system to mount over an existing directory. */
export interface Mount {
  readonly directory: string
  /** Options of tmpfs: `noexec`, `ro`, `size=64k`. */
  readonly options: string
}

/** Arguments that run `command` with the mounts in force for it alone: a mount namespace of its own, as root in a user namespace. */
export function mounted(mounts: readonly Mount[], command: readonly string[]): { program: string; args: string[] } {
  // The command replaces the shell: its pid is the child's.
  const script = [
    'set -e',
    ...mounts.map(({ directory, options }) => `mount -t tmpfs -o '${options}' none '${directory}'`),
    'exec "$@"',
  ].join('\n')
  return { program: 'unshare', args: ['--map-root-user', '--mount', 'sh', '-c', script, 'mounted', ...command] }
}

/** Runs `command` to its end under the mounts and gives what it printed. */
export async function outputUnder(mounts: readonly Mount[], command: readonly string[]): Promise<string> {
  const { program, args } = mounted(mounts, command)
  return (await run(program, args)).stdout
}

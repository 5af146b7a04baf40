import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const SLUICE = join(import.meta.dirname, '../../scripts/sluice')

/** A command that takes longer hangs; it is killed, and its status is null. */
const DEADLINE_MS = 60_000

export interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `scripts/sluice` as a user would and waits for its end. The environment holds nothing of ours unless given. */
export async function runSluice(
  args: readonly string[],
  { stdin = '', cwd, env = {} }: { stdin?: string; cwd?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<Outcome> {
  const plain = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')))
  const child = spawn(SLUICE, args, { env: { ...plain, ...env }, ...(cwd === undefined ? {} : { cwd }) })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  // A command that does not read its input may be gone before it is written.
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  const deadline = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
  await once(child, 'close')
  clearTimeout(deadline)
  return { status: child.exitCode, stdout, stderr }
}

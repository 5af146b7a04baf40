import { randomBytes } from 'node:crypto'
import { access, mkdir, readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { BrokerError } from '../model/error.ts'
import { writeAtomically } from './atomic-file.ts'

const ID_FORM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** Base32 without letters that are read as digits. 32 of them: one random byte picks one without bias. */
const LETTERS = 'abcdefghjkmnpqrstuvwxyz023456789'

/**
 * Who this gateway is: the configured id, else the one kept in `data_dir/gateway-id`, made at the first start from the host name and 6 random
 * characters (every fresh Pi is called `raspberrypi`). Rejects with STORE_UNWRITABLE if it can't be read or kept.
 */
export async function gatewayId({
  configured,
  dataDir,
}: {
  configured: string | null
  dataDir: string
}): Promise<string> {
  if (configured !== null) return configured
  const file = join(dataDir, 'gateway-id')
  try {
    await makeDirectory(dataDir)
    const kept = await readKept(file)
    if (kept !== null) return kept
    const id = `${hostPart(hostname())}-${randomLetters(6)}`
    // On the disk before the first message id is given out.
    await writeAtomically(file, `${id}\n`)
    return id
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new BrokerError(
      'STORE_UNWRITABLE',
      `The gateway id can't be kept in ${file}: ${reason}. Give data_dir a directory this user may write to, or set gateway.id.`,
      { cause },
    )
  }
}

/** Like `mkdir -p`. Node's own recursive mkdir never returns where the system says ENOENT although the parent exists (/proc). */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'EEXIST') return
    if (code !== 'ENOENT' || (await isThere(dirname(path)))) throw error
    await makeDirectory(dirname(path))
    await mkdir(path)
  }
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

async function readKept(file: string): Promise<string | null> {
  try {
    const text = (await readFile(file, 'utf8')).trim()
    // A file cut short by a power loss must not stop the gateway: it gets a new id, as a fresh one would.
    return ID_FORM.test(text) ? text : null
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
    throw error
  }
}

function hostPart(host: string): string {
  const cleaned = host.replaceAll(/[^A-Za-z0-9._-]/g, '').replace(/^[^A-Za-z0-9]+/, '')
  return cleaned === '' ? 'gateway' : cleaned.slice(0, 57)
}

function randomLetters(length: number): string {
  return [...randomBytes(length)].map(byte => LETTERS[byte % LETTERS.length]).join('')
}

import { execFile } from 'node:child_process'
import { access } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** systemd-timesyncd makes this file when it has set the clock; it is gone after a reboot. */
const TIMESYNCD_MARK = '/run/systemd/timesync/synchronized'
const TIMEDATECTL_TIMEOUT_MS = 5000
/** Starting a process keeps the event loop busy for some milliseconds; right after a start the first devices want them. */
const TIMEDATECTL_DELAY_MS = 1000

/**
 * Whether a time service has set the clock since the machine came up. The kernel knows (adjtimex(2), STA_UNSYNC) whichever service it is, and out of Node only
 * timedatectl tells; so the mark of the most common service is looked for first. False where neither is there, in a container for example.
 */
export async function isTimeSynchronised(): Promise<boolean> {
  if (await hasTimesyncdMark()) return true
  await delay(TIMEDATECTL_DELAY_MS, undefined, { ref: false })
  return isSynchronisedByKernel()
}

function hasTimesyncdMark(): Promise<boolean> {
  return access(TIMESYNCD_MARK).then(
    () => true,
    () => false,
  )
}

function isSynchronisedByKernel(): Promise<boolean> {
  return new Promise(resolve => {
    const question = ['show', '--property=NTPSynchronized', '--value']
    execFile('timedatectl', question, { timeout: TIMEDATECTL_TIMEOUT_MS }, (error, answer) =>
      resolve(error === null && answer.trim() === 'yes'),
    )
  })
}

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstat, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { AcceptedSocket } from '../../../src/transport/listener.ts'
import { UnixListener } from '../../../src/transport/unix.ts'
import { eventually } from '../../support/eventually.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const log = pino({ level: 'silent' })

let directory: TempDir
let path: string

beforeEach(async () => {
  directory = await tempDir()
  path = join(directory.path, 'mqtt.sock')
})

afterEach(() => directory.remove())

const listenerOn = (place: string, mode = 0o660) => new UnixListener({ name: 'unix', path: place, mode, log })
const nobody = () => null

test('a process of this machine connects to the file, and is local', async () => {
  const listener = listenerOn(path)
  const accepted: AcceptedSocket[] = []
  await listener.start(socket => {
    accepted.push(socket)
    socket.on('data', (chunk: Buffer) => socket.write(chunk))
    return null
  })
  expect(listener.address()).toEqual({ host: path, port: 0 })
  const client = connect(path)
  client.write('hello')
  const [heard] = await once(client, 'data')
  expect(heard.toString()).toBe('hello')
  expect(accepted[0]?.peer).toEqual({ listener: 'unix', isLocal: true, certificateUser: null, isEncrypted: false })
  expect(accepted[0]?.remoteAddress).toBeUndefined()
  expect(listener.counters.accepted).toBe(1)
  const closed = once(client, 'close')
  await listener.stop()
  await closed
})

for (const mode of [0o600, 0o666]) {
  test(`the file has the permissions ${mode.toString(8)}, and is gone when the listener has stopped`, async () => {
    const umask = process.umask()
    const listener = listenerOn(path, mode)
    await listener.start(nobody)
    expect((await stat(path)).mode & 0o777).toBe(mode)
    expect(process.umask()).toBe(umask)
    await listener.stop()
    await expect(lstat(path)).rejects.toMatchObject({ code: 'ENOENT' })
  })
}

test('the file of a process that was killed is replaced', async () => {
  const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.stdout.write('up'))`
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'close')
  expect((await lstat(path)).isSocket()).toBe(true)
  const listener = listenerOn(path)
  await listener.start(nobody)
  const client = connect(path)
  await eventually(() => listener.counters.accepted === 1)
  client.destroy()
  await listener.stop()
})

test('a file that a process listens on is in use, which says what to do, and that process goes on', async () => {
  const first = listenerOn(path)
  await first.start(nobody)
  const error: unknown = await listenerOn(path)
    .start(nobody)
    .catch((reason: unknown) => reason)
  expect(error).toMatchObject({ code: 'LISTENER_PORT_IN_USE', facts: { listener: 'unix', path } })
  expect(String(error)).toContain(`${path} is in use by another process`)
  expect(String(error)).toContain('listeners.unix.path')
  const client = connect(path)
  await once(client, 'connect')
  client.destroy()
  await first.stop()
})

test('what is no socket is left alone', async () => {
  await writeFile(path, 'precious')
  await expect(listenerOn(path).start(nobody)).rejects.toMatchObject({
    code: 'LISTENER_FAILED',
    message: expect.stringContaining(`${path} is there and no socket`),
  })
  expect((await stat(path)).size).toBe(8)
})

for (const [name, place] of [
  ['a directory that is not there', 'missing/mqtt.sock'],
  ['a path longer than the system takes', 'x'.repeat(200)],
] as const) {
  test(`${name} is an error that says what to set`, async () => {
    await expect(listenerOn(join(directory.path, place)).start(nobody)).rejects.toMatchObject({
      code: 'LISTENER_FAILED',
      message: expect.stringContaining('set listeners.unix.path'),
    })
  })
}

test('stop before start and stop twice do nothing', async () => {
  const listener = listenerOn(path)
  await listener.stop()
  await listener.start(nobody)
  await listener.stop()
  await listener.stop()
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type ChannelModel, connect } from 'amqplib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  findMosquitto,
  findRabbit,
  type Peer,
  type RabbitPeer,
  startMosquitto,
  startRabbit,
} from '../../scripts/peers.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const BOOT_MS = 90_000

/** Processes that were started for a peer with this directory: they have its path in their environment or arguments. */
async function processesOf(directory: string): Promise<number[]> {
  const found: number[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const texts = ['environ', 'cmdline'].map(file => readFile(join('/proc', entry, file), 'utf8').catch(() => ''))
    if ((await Promise.all(texts)).some(text => text.includes(directory))) found.push(Number(entry))
  }
  return found
}

/** `T` of /proc/PID/stat: stopped by a signal. */
async function isFrozen(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')
}

async function openAmqp(peer: Peer): Promise<ChannelModel> {
  const model = await connect(peer.url, { timeout: 5000 })
  model.on('error', () => undefined)
  return model
}

/** Publishes persistent messages with these bodies to a quorum queue and waits for the confirms. */
async function publish(peer: Peer, queue: string, bodies: readonly string[]): Promise<void> {
  const model = await openAmqp(peer)
  const channel = await model.createConfirmChannel()
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body), { persistent: true })
  await channel.waitForConfirms()
  await model.close()
}

async function drain(peer: Peer, queue: string): Promise<string[]> {
  const model = await openAmqp(peer)
  const channel = await model.createChannel()
  const bodies: string[] = []
  for (;;) {
    const message = await channel.get(queue, { noAck: true })
    if (message === false) break
    bodies.push(message.content.toString())
  }
  await model.close()
  return bodies
}

const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

describe('RabbitMQ', () => {
  let directory: TempDir
  let rabbit: RabbitPeer

  beforeAll(async () => {
    directory = await tempDir()
    rabbit = await startRabbit({ directory: directory.path })
  }, BOOT_MS)

  afterAll(async () => {
    await rabbit?.stop()
    await directory.remove()
  }, BOOT_MS)

  test('answers as soon as startRabbit has resolved, and confirms what is published', async () => {
    await publish(rabbit, 'first', numbered(1, 100))
    expect(await drain(rabbit, 'first')).toEqual(numbered(1, 100))
  })

  test('keeps to its own directory and to 127.0.0.1', async () => {
    expect((await processesOf(directory.path)).length).toBeGreaterThanOrEqual(2)
    const status = await rabbit.ctl(['eval', 'rabbit_networking:active_listeners().'])
    expect(status).toContain('{127,0,0,1}')
    expect(status).toContain(String(rabbit.port))
    expect(await rabbit.ctl(['environment'])).toContain(directory.path)
  })

  test('frozen it keeps connections and answers nothing; thawed it goes on where it was', async () => {
    const model = await openAmqp(rabbit)
    const channel = await model.createConfirmChannel()
    await channel.assertQueue('frozen', { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    rabbit.freeze()
    await eventually(() => isFrozen(rabbit.pid))
    channel.sendToQueue('frozen', Buffer.from('late'), { persistent: true })
    const confirmed = channel.waitForConfirms().then(() => 'confirmed')
    // Far longer than a confirm takes; that nothing comes can only be seen by waiting.
    expect(await Promise.race([confirmed, delay(500, 'silence')])).toBe('silence')
    rabbit.thaw()
    expect(await confirmed).toBe('confirmed')
    await model.close()
    expect(await drain(rabbit, 'frozen')).toEqual(['late'])
  }, 30_000)

  test(
    'killed and restarted it has the same port and everything it had confirmed',
    async () => {
      const { port, url, pid } = rabbit
      await publish(rabbit, 'kept', numbered(1, 500))
      await rabbit.flushQueueNames()
      await rabbit.kill()
      expect(() => rabbit.pid).toThrow(/not running/)
      await expect(openAmqp(rabbit)).rejects.toThrow('ECONNREFUSED')
      await rabbit.restart()
      expect([rabbit.port, rabbit.url]).toEqual([port, url])
      expect(rabbit.pid).not.toBe(pid)
      await publish(rabbit, 'kept', numbered(501, 600))
      expect(await drain(rabbit, 'kept')).toEqual(numbered(1, 600))
    },
    BOOT_MS,
  )

  test(
    'several run at once, and a stop leaves no process behind, even of a frozen one',
    async () => {
      await using otherDirectory = await tempDir()
      const other = await startRabbit({ directory: otherDirectory.path })
      expect(other.port).not.toBe(rabbit.port)
      await publish(other, 'mine', ['other'])
      await publish(rabbit, 'mine', ['first'])
      expect(await drain(other, 'mine')).toEqual(['other'])
      expect(await drain(rabbit, 'mine')).toEqual(['first'])
      other.freeze()
      await other.stop()
      await eventually(async () => (await processesOf(otherDirectory.path)).length === 0)
      await other.stop()
      await publish(rabbit, 'mine', ['still here'])
    },
    BOOT_MS,
  )
})

describe('mosquitto', () => {
  test('is killed when the process that started it is killed', async () => {
    await using directory = await tempDir()
    const starter = spawn(process.execPath, ['scripts/peers.ts', 'mosquitto', '--directory', directory.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = await once(starter.stdout, 'data')
    expect(String(line)).toMatch(/^mqtt:\/\/127\.0\.0\.1:\d+\n$/)
    expect((await processesOf(directory.path)).length).toBeGreaterThanOrEqual(2)
    starter.kill('SIGKILL')
    await eventually(async () => (await processesOf(directory.path)).length === 0)
  })

  test('the command line stops it on SIGTERM and ends with status 0', async () => {
    await using directory = await tempDir()
    const starter = spawn(process.execPath, ['scripts/peers.ts', 'mosquitto', '--directory', directory.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(starter.stdout, 'data')
    starter.kill('SIGTERM')
    expect(await once(starter, 'exit')).toEqual([0, null])
    expect(await processesOf(directory.path)).toEqual([])
  })

  test('runs with further lines of configuration, survives kill and restart, and leaves nothing behind', async () => {
    await using directory = await tempDir()
    const mosquitto = await startMosquitto({ directory: directory.path, config: 'max_inflight_messages 1000' })
    const { port, pid } = mosquitto
    expect(mosquitto.url).toBe(`mqtt://127.0.0.1:${port}`)
    await mosquitto.kill()
    await mosquitto.restart()
    expect(mosquitto.port).toBe(port)
    expect(mosquitto.pid).not.toBe(pid)
    mosquitto.freeze()
    await eventually(() => isFrozen(mosquitto.pid))
    mosquitto.thaw()
    await mosquitto.stop()
    await eventually(async () => (await processesOf(directory.path)).length === 0)
  })

  test('a configuration it refuses is an error with its own words', async () => {
    await using directory = await tempDir()
    await expect(startMosquitto({ directory: directory.path, config: 'max_inflight_mesages 10' })).rejects.toThrow(
      /mosquitto ended while starting: .*Unknown configuration variable "max_inflight_mesages"/,
    )
  })
})

test('programs that are installed are found without installing anything', async () => {
  const source = { mayInstall: false, onProgress: (line: string) => expect.unreachable(line) }
  expect(await findRabbit(source)).toContain('rabbitmq-server')
  expect(await findMosquitto(source)).toContain('mosquitto')
})

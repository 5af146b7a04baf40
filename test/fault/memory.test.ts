import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { connect311, hex16, puback, publish311, subscribe311 } from '../protocol/mqtt/packets.ts'
import { eventually } from '../support/eventually.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { tempDir } from '../support/temp-dir.ts'
import { bytes, packet, text, WireClient } from '../support/wire.ts'

const SLUICE = join(import.meta.dirname, '../../scripts/sluice')
const MIB = 1024 ** 2
/** docs/security.md, "When memory is short". */
const MOST_RESIDENT_BYTES = 300 * MIB
const FLOOD_MS = 10_000
const CONNACK = bytes('20 02 00 00')

/** Peak of resident memory, bytes. */
function peakBytes(pid: number): number {
  const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}

/** Sends messages as fast as they are taken, over a new connection whenever the last one was closed, until `untilMs`. */
async function flood(port: number, clientId: string, message: (n: number) => Buffer, untilMs: number): Promise<void> {
  while (performance.now() < untilMs) {
    const client = await WireClient.connect(port)
    client.socket.on('data', () => undefined)
    client.says(connect311(clientId))
    for (let n = 1; !client.isClosed && performance.now() < untilMs; n = (n % 60_000) + 1) {
      const isTaken = client.socket.write(message(n))
      await delay(isTaken ? 0 : 20)
    }
    client.close()
  }
}

describe('a gateway with limits.memory: 32MiB', () => {
  test('stays below its bound and serves others, while many clients at once fill everything there is to fill', async () => {
    await using directory = await tempDir()
    await using gateway = await startGatewayProcess({
      command: [SLUICE],
      directory: directory.path,
      config: 'limits: { memory: 32MiB }\nlog: { level: error }',
    })
    const port = Number(new URL(gateway.mqttUrl).port)
    const clients: WireClient[] = []
    const open = async (...said: Buffer[]): Promise<WireClient> => {
      const client = await WireClient.connect(port)
      clients.push(client)
      return client.says(...said)
    }
    // Sessions that are away, subscribers that read nothing, and as many subscriptions as are granted.
    for (let n = 0; n < 500; n++) {
      const away = await open(connect311(`away${n}`, '00'), subscribe311('00 01', 'flood/#', '01'))
      await away.hears(CONNACK, bytes('90 03 00 01 01'))
      away.close()
    }
    for (let n = 0; n < 40; n++) {
      const frozen = await open(connect311(`frozen${n}`), subscribe311('00 01', 'flood/#', n % 2 === 0 ? '00' : '01'))
      await eventually(() => frozen.heardBytes >= 9)
      frozen.socket.pause()
    }
    for (let n = 0; n < 20; n++) {
      const filters = Array.from({ length: 100 }, (_, i) => [text(`${n}/${i}${'/x'.repeat(100)}`), Buffer.from([1])])
      await open(connect311(`deep${n}`), packet(0x82, '00 01', ...filters.flat()))
    }
    const large = Buffer.alloc(900_000)
    const messages: ((n: number) => Buffer)[] = [
      n => packet(0x32, text('flood/large'), hex16(n), large),
      () => packet(0x30, text('flood/large'), large),
      n => packet(0x32, text('flood/small'), hex16(n), 'x'.repeat(5000)),
      n => packet(0x33, text(`kept/${Math.random()}`), hex16(n), 'x'.repeat(500)),
      n => packet(0x30, text(`spray/${n}`.padEnd(1000, 'x')), 'x'),
    ]
    const untilMs = performance.now() + FLOOD_MS
    const floods = messages.flatMap((message, kind) =>
      [0, 1].map(n => flood(port, `flood${kind}-${n}`, message, untilMs)),
    )
    const subscriber = await open(connect311('subscriber'), subscribe311('00 01', 'well/behaved', '00'))
    const publisher = await open(connect311('publisher'))
    let said = 0
    while (performance.now() < untilMs) {
      publisher.says(publish311('well/behaved', `${said++}`))
      await delay(100)
    }
    await Promise.all(floods)
    await eventually(() => subscriber.heardBytes > 9 + said, { what: 'what the well-behaved client has sent' })
    expect(subscriber.isClosed).toBe(false)
    expect(peakBytes(gateway.pid)).toBeLessThan(MOST_RESIDENT_BYTES)
    // Everybody is served again.
    const late = await open(connect311('late'), publish311('well/behaved', 'after', 0x32, '00 01'))
    await late.hears(CONNACK, puback('00 01'))
    for (const client of clients) client.close()
  })
})

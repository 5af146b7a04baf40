import { once } from 'node:events'
import pino from 'pino'
import { describe, expect, test, vi } from 'vitest'
import type { AcceptedSocket } from '../../../src/transport/listener.ts'
import { TcpListener } from '../../../src/transport/tcp.ts'
import { WebSocketListener, type WebSocketOptions } from '../../../src/transport/ws.ts'
import { eventually } from '../../support/eventually.ts'
import { frame, Opcode, RawWebSocket, request, UPGRADE } from '../../support/raw-web-socket.ts'

const log = pino({ level: 'silent' })
const KIB = 1024

/** A listener whose connections are at hand, and which answers every chunk with its text in brackets. */
class UnderTest {
  readonly listener: WebSocketListener
  readonly accepted: AcceptedSocket[] = []
  readonly errors: string[] = []
  heard = ''
  closed = 0

  private constructor(listener: WebSocketListener) {
    this.listener = listener
  }

  static async start({
    packetBytes = 64 * KIB,
    origins = [],
    trustedProxies = null,
  }: Partial<WebSocketOptions> & { trustedProxies?: readonly string[] | null } = {}): Promise<UnderTest> {
    const inner = new TcpListener({
      ...{ name: 'ws', host: '127.0.0.1', port: 0, log },
      ...{ reads: 'own' as const, trustedProxies },
    })
    const underTest = new UnderTest(
      new WebSocketListener(inner, { path: '/mqtt', origins, packetBytes, deadlineMs: 10_000 }),
    )
    await underTest.listener.start(socket => {
      underTest.#accept(socket)
      return null
    })
    return underTest
  }

  #accept(socket: AcceptedSocket): void {
    this.accepted.push(socket)
    socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString()
      socket.write(`[${chunk}]`)
    })
    socket.on('end', () => socket.end())
    socket.on('error', (error: Error) => this.errors.push(error.message))
    socket.on('close', () => this.closed++)
  }

  get port(): number {
    return this.listener.address().port
  }

  open(headers: Readonly<Record<string, string>> = {}): Promise<RawWebSocket> {
    return RawWebSocket.open(this.port, headers)
  }

  /** Upgraded, and answered once. */
  async known(): Promise<RawWebSocket> {
    const client = await this.open()
    await client.says(frame(Buffer.from('.'))).hearsFrame()
    return client
  }

  /** What a request is answered with, when the connection is closed behind it. */
  async asks(text: string): Promise<{ status: number; headers: ReadonlyMap<string, string>; text: string }> {
    const client = await RawWebSocket.connect(this.port)
    const answer = await client.says(text).hearsAnswer()
    await eventually(() => client.isClosed || client.socket.readableEnded, { what: 'the end of the connection' })
    client.close()
    return answer
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.listener.stop()
  }
}

describe('the upgrade', () => {
  test('gives a stream with the address of the client, that answers in binary frames', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    const heard = await client.says(frame(Buffer.from('hello'))).hearsFrame()
    expect(heard).toEqual({ opcode: Opcode.binary, payload: Buffer.from('[hello]') })
    expect(it.accepted[0]?.remoteAddress).toBe('127.0.0.1')
    expect(it.accepted[0]?.remotePort).toBe(client.socket.localPort)
    expect(it.accepted[0]?.peer).toEqual({ listener: 'ws', isLocal: true, certificateUser: null, isEncrypted: false })
    expect(it.listener.counters.accepted).toBe(1)
    client.close()
  })

  test('may come in one piece with the first frame, or byte by byte, and the path may have a query', async () => {
    await using it = await UnderTest.start()
    const text = request(UPGRADE, 'GET /mqtt?token=7 HTTP/1.1')
    for (const pieces of [[text], [...text]]) {
      const client = await RawWebSocket.connect(it.port)
      for (const piece of pieces) client.says(piece)
      client.says(frame(Buffer.from('hello')))
      expect((await client.hearsAnswer()).status).toBe(101)
      expect((await client.hearsFrame()).payload.toString()).toBe('[hello]')
      client.close()
    }
  })

  test('behind a proxy has the address that one tells', async () => {
    await using it = await UnderTest.start({ trustedProxies: ['127.0.0.1'] })
    const client = await RawWebSocket.connect(it.port)
    client.says(`PROXY TCP4 192.0.2.7 10.0.0.1 54321 1883\r\n${request(UPGRADE)}`)
    expect((await client.hearsAnswer()).status).toBe(101)
    expect(it.accepted[0]?.remoteAddress).toBe('192.0.2.7')
    expect(it.accepted[0]?.peer?.isLocal).toBe(false)
    client.close()
  })

  for (const offered of ['mqtt', 'mqttv3.1', 'soap, mqtt', 'mqttv3.1, mqtt']) {
    test(`answers the subprotocols ${offered} [MQTT-6.0.0-4], 3.1.1 [MQTT-6.0.0-4]`, async () => {
      await using it = await UnderTest.start()
      const client = await RawWebSocket.connect(it.port)
      client.says(request({ ...UPGRADE, 'Sec-WebSocket-Protocol': offered }))
      const chosen = offered === 'mqttv3.1' ? 'mqttv3.1' : 'mqtt'
      expect((await client.hearsAnswer()).headers.get('sec-websocket-protocol')).toBe(chosen)
      client.close()
    })
  }

  test('offers no compression, even where the client would', async () => {
    await using it = await UnderTest.start()
    const client = await RawWebSocket.connect(it.port)
    client.says(request({ ...UPGRADE, 'Sec-WebSocket-Extensions': 'permessage-deflate' }))
    const { status, headers } = await client.hearsAnswer()
    expect([status, headers.has('sec-websocket-extensions')]).toEqual([101, false])
    client.close()
  })
})

describe('what is not upgraded', () => {
  const without = (name: string): Record<string, string> =>
    Object.fromEntries(Object.entries(UPGRADE).filter(([key]) => key !== name))
  for (const [name, text, status, why] of [
    ['a page of a browser', request({ Host: 'gw' }), 426, 'MQTT over WebSocket'],
    ['a page of another path', request({ Host: 'gw' }, 'GET / HTTP/1.1'), 404, '/mqtt'],
    ['an upgrade of another path', request(UPGRADE, 'GET /mqtt/ HTTP/1.1'), 404, '/mqtt'],
    ['a path that looks like ours', request(UPGRADE, 'GET /%6dqtt HTTP/1.1'), 404, '/mqtt'],
    ['an upgrade to something else', request({ ...UPGRADE, Upgrade: 'h2c' }), 400, 'Upgrade'],
    ['POST', request(UPGRADE, 'POST /mqtt HTTP/1.1'), 405, 'method'],
    ['no key', request(without('Sec-WebSocket-Key')), 400, 'Sec-WebSocket-Key'],
    ['an old version', request({ ...UPGRADE, 'Sec-WebSocket-Version': '7' }), 400, 'Sec-WebSocket-Version'],
    ['no subprotocol [MQTT-6.0.0-3], 3.1.1 [MQTT-6.0.0-3]', request(without('Sec-WebSocket-Protocol')), 400, 'mqtt'],
    ['another subprotocol', request({ ...UPGRADE, 'Sec-WebSocket-Protocol': 'soap' }), 400, 'mqtt'],
    ['a foreign page', request({ ...UPGRADE, Origin: 'http://evil.example' }), 403, 'origins'],
    ['no Host', request({}), 400, ''],
    ['headers of 9 KiB', request({ ...UPGRADE, Cookie: 'x'.repeat(9 * KIB) }), 431, ''],
    ['noise', '\0\x01\x02\r\n\r\n', 400, ''],
    ['MQTT', Buffer.from('100c00044d5154540402003c0000', 'hex').toString('latin1'), 400, ''],
  ] as const) {
    test(`${name}: ${status}, closed and counted`, async () => {
      await using it = await UnderTest.start()
      const answer = await it.asks(text)
      expect(answer.status).toBe(status)
      expect(answer.text).toContain(why)
      await eventually(() => it.listener.counters.refused.handshake === 1)
      expect(it.accepted).toEqual([])
    })
  }

  test('a connection that has not upgraded when its time is over, whatever it says meanwhile', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      await using it = await UnderTest.start()
      const client = await RawWebSocket.connect(it.port)
      client.says('GET /mqtt HTTP/1.1\r\n')
      await eventually(() => it.listener.counters.accepted === 1)
      vi.advanceTimersByTime(9_999)
      await client.says('Host: gw\r\n')
      expect(client.isClosed).toBe(false)
      vi.advanceTimersByTime(1)
      await eventually(() => client.isClosed)
      await eventually(() => it.listener.counters.refused.handshake === 1)
    } finally {
      vi.useRealTimers()
    }
  })

  test('more than 256 that wait to upgrade: the next is closed, and one that upgrades makes room', async () => {
    await using it = await UnderTest.start()
    const waiting = await Promise.all(Array.from({ length: 256 }, () => RawWebSocket.connect(it.port)))
    await eventually(() => it.listener.counters.accepted === 256)
    const next = await RawWebSocket.connect(it.port)
    await eventually(() => next.isClosed)
    expect((await waiting[0]?.says(request(UPGRADE)).hearsAnswer())?.status).toBe(101)
    const late = await it.open()
    for (const client of [...waiting, late]) client.close()
  })
})

describe('whose pages may connect', () => {
  const cases: readonly (readonly [string, { origins?: string[]; host: string; origin: string }, 101 | 403])[] = [
    ['a page of the same address', { host: '192.0.2.1:8083', origin: 'http://192.0.2.1:15680' }, 101],
    ['a page of the same address in IPv6', { host: '[::1]:8083', origin: 'http://[0:0::1]' }, 101],
    ['a page of localhost', { host: 'localhost:8083', origin: 'http://localhost' }, 101],
    ['a page of another address', { host: '192.0.2.1:8083', origin: 'http://192.0.2.2' }, 403],
    ['a page whose name was made to lead here', { host: 'evil.example:8083', origin: 'http://evil.example:8083' }, 403],
    ['a page of no site (a file, a sandbox)', { host: '192.0.2.1', origin: 'null' }, 403],
    ['a page that is listed', { origins: ['https://a.example'], host: 'gw', origin: 'https://a.example' }, 101],
    ['its neighbour', { origins: ['https://a.example'], host: 'gw', origin: 'https://a.example:444' }, 403],
    [
      'a page of the same address that is not listed',
      { origins: ['https://a.example'], host: '::1', origin: 'http://::1' },
      403,
    ],
    ['any page, where that is meant', { origins: ['*'], host: 'gw', origin: 'http://evil.example' }, 101],
  ]
  for (const [name, { origins = [], host, origin }, status] of cases) {
    test(`${name}: ${status}`, async () => {
      await using it = await UnderTest.start({ origins })
      const client = await RawWebSocket.connect(it.port)
      const answer = await client.says(request({ ...UPGRADE, Host: host, Origin: origin })).hearsAnswer()
      expect(answer.status).toBe(status)
      client.close()
    })
  }
})

describe('frames of a hostile client', () => {
  const HELLO = Buffer.from('hello')
  for (const [name, sent, code] of [
    ['a text frame [MQTT-6.0.0-1], 3.1.1 [MQTT-6.0.0-1]', frame(HELLO, { opcode: Opcode.text }), 1003],
    ['a frame without a mask', frame(HELLO, { isMasked: false }), 1002],
    ['a compressed frame', frame(HELLO, { reserved: 4 }), 1002],
    ['a reserved bit', frame(HELLO, { reserved: 1 }), 1002],
    ['an opcode that does not exist', frame(HELLO, { opcode: 5 }), 1002],
    ['a continuation of nothing', frame(HELLO, { opcode: Opcode.continuation }), 1002],
    ['a message within a message', Buffer.concat([frame(HELLO, { isFinal: false }), frame(HELLO)]), 1002],
    ['a ping in fragments', frame(HELLO, { opcode: Opcode.ping, isFinal: false }), 1002],
    ['a ping of 126 bytes', frame(Buffer.alloc(126), { opcode: Opcode.ping }), 1002],
    ['a close of one byte', frame(Buffer.alloc(1), { opcode: Opcode.close }), 1002],
    ['a message of 2^63 bytes', frame(HELLO, { announced: 2n ** 63n }), 1009],
    ['a message one byte too long', frame(HELLO, { announced: BigInt(64 * KIB + 6) }), 1009],
    [
      'a message too long, in fragments',
      Buffer.concat([
        frame(Buffer.alloc(40 * KIB), { isFinal: false }),
        frame(Buffer.alloc(40 * KIB), { opcode: Opcode.continuation }),
      ]),
      1009,
    ],
    [
      'a thousand fragments',
      Buffer.concat([
        frame(HELLO, { isFinal: false }),
        ...Array.from({ length: 1000 }, () => frame(HELLO, { opcode: Opcode.continuation, isFinal: false })),
      ]),
      1008,
    ],
  ] as const) {
    test(`${name}: closed with ${code}, and counted`, async () => {
      await using it = await UnderTest.start()
      const client = await it.known()
      expect(await client.says(sent).hearsClose()).toBe(code)
      // It need not answer.
      await eventually(() => it.closed === 1)
      expect(it.errors).toHaveLength(1)
      expect(it.listener.counters.refused.frames).toBe(1)
      expect(it.heard).toBe('.')
      client.close()
    })
  }

  test('a message of exactly the largest packet is taken', async () => {
    await using it = await UnderTest.start()
    const client = await it.known()
    client.says(frame(Buffer.alloc(64 * KIB + 5, 'x')))
    await eventually(() => it.heard.length === 1 + 64 * KIB + 5)
    client.close()
  })

  test('a close without a body is answered, and is the end of the stream', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    client.says(frame(HELLO), frame(Buffer.alloc(0), { opcode: Opcode.close }))
    expect((await client.hearsFrame()).payload.toString()).toBe('[hello]')
    await client.hearsClose()
    await eventually(() => it.closed === 1)
    expect(it.errors).toEqual([])
  })

  test('a connection cut without a close frame, and one reset, are ends of the stream', async () => {
    await using it = await UnderTest.start()
    const [cut, reset] = [await it.open(), await it.open()]
    cut.socket.end()
    reset.socket.resetAndDestroy()
    await eventually(() => it.closed === 2)
    expect(it.listener.counters.refused.frames).toBe(0)
    cut.close()
  })

  test('a client that has not been answered is read on only when it is, if its message takes more than CONNECT would', async () => {
    await using it = await UnderTest.start({ packetBytes: 16 * 1024 * KIB })
    const client = await it.open()
    const text = Buffer.alloc(16 * 1024 * KIB, 'x')
    const whole = frame(text)
    for (let at = 0; at < whole.length; at += 64 * KIB) client.says(whole.subarray(at, at + 64 * KIB))
    let before: number
    do {
      before = client.socket.writableLength
      await it.known()
    } while (client.socket.writableLength < before)
    // More than the kernel holds for anybody.
    expect(client.socket.writableLength).toBeGreaterThan(0)
    it.accepted[0]?.write('answer')
    await eventually(() => it.heard.endsWith('x') && it.heard.length > text.length)
    client.close()
  })

  test('all unfinished messages together have 16 MiB; then whoever wants more is closed, and the others go on', async () => {
    await using it = await UnderTest.start({ packetBytes: 1024 * KIB })
    const clients: RawWebSocket[] = []
    for (let n = 0; n < 20; n++) {
      const client = await it.known()
      clients.push(client.says(frame(Buffer.alloc(1000 * KIB), { announced: 1024n * 1024n })))
    }
    await eventually(() => clients.some(client => client.isClosed))
    const closed = () => clients.filter(client => client.isClosed).length
    await eventually(() => it.listener.counters.refused.frames === closed())
    expect(closed()).toBeGreaterThanOrEqual(3)
    expect(closed()).toBeLessThan(8)
    const idle = await it.known()
    // What is over is given back.
    for (const client of clients) client.close()
    await eventually(() => it.closed === 20)
    const large = await it.known()
    large.says(frame(Buffer.alloc(1000 * KIB, 'z')))
    await eventually(() => it.heard.endsWith('zzz'))
    for (const client of [idle, large]) client.close()
  })

  test('a flood of pings is answered while the client reads, and ends the connection when it does not', async () => {
    await using it = await UnderTest.start()
    const ping = frame(HELLO, { opcode: Opcode.ping })
    const reader = await it.open()
    for (let n = 0; n < 500; n++) {
      const heard = await reader.says(ping).hearsFrame()
      expect(heard).toEqual({ opcode: Opcode.pong, payload: HELLO })
    }
    const deaf = await it.open()
    deaf.socket.pause()
    const flood = Buffer.concat(Array.from({ length: 5_000 }, () => ping))
    deaf.says(flood)
    await eventually(() => it.closed === 1)
    expect(reader.isClosed).toBe(false)
    for (const client of [reader, deaf]) client.close()
  })
})

describe('backpressure', () => {
  test('a stream that is paused stops the client, and goes on where it was', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    await client.says(frame(Buffer.from('a'))).hearsFrame()
    const [socket] = it.accepted
    socket?.pause()
    const piece = frame(Buffer.alloc(32 * KIB, 'b'))
    let sent = 0
    const isStuck = () => client.socket.writableLength > 512 * KIB
    while (!isStuck() && sent < 4_000) {
      client.says(piece)
      sent++
      await new Promise(resolve => setImmediate(resolve))
    }
    expect(isStuck()).toBe(true)
    expect(it.heard).toBe('a')
    expect(socket?.readableLength).toBeLessThan(256 * KIB)
    socket?.resume()
    await eventually(() => it.heard.length === 1 + sent * 32 * KIB)
    client.close()
  })

  test('what the client does not read stays with the writer, who hears when it is taken', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    await eventually(() => it.accepted.length === 1)
    client.socket.pause()
    const [socket] = it.accepted
    if (socket === undefined) throw new TypeError('nothing was accepted')
    let written = 0
    const block = Buffer.alloc(64 * KIB)
    do socket.write(block, () => written++)
    while (socket.writableLength === 0)
    for (let n = 0; n < 10; n++) socket.write(block, () => written++)
    expect(socket.writableLength).toBeGreaterThanOrEqual(10 * 64 * KIB)
    const before = written
    client.socket.resume()
    await eventually(() => socket.writableLength === 0)
    expect(written).toBeGreaterThanOrEqual(before + 10)
    client.close()
  })

  test('what was gathered in a turn leaves in one write, a frame for each piece', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    await eventually(() => it.accepted.length === 1)
    const chunks = once(client.socket, 'data')
    const [socket] = it.accepted
    socket?.cork()
    for (const text of ['one', 'two', 'three']) socket?.write(text)
    socket?.uncork()
    const [chunk] = await chunks
    expect(chunk).toHaveLength(2 + 3 + 2 + 3 + 2 + 5)
    for (const text of ['one', 'two', 'three']) expect((await client.hearsFrame()).payload.toString()).toBe(text)
    client.close()
  })
})

describe('the end', () => {
  test('of the output is a close frame, and the connection is over when it is answered', async () => {
    await using it = await UnderTest.start()
    const client = await it.open()
    await eventually(() => it.accepted.length === 1)
    it.accepted[0]?.end('bye')
    expect((await client.hearsFrame()).payload.toString()).toBe('bye')
    expect((await client.hearsFrame()).payload.readUInt16BE(0)).toBe(1000)
    expect(it.closed).toBe(0)
    client.says(frame(Buffer.from([3, 232]), { opcode: Opcode.close }))
    await eventually(() => it.closed === 1 && client.isClosed)
  })

  test('of the listener closes what is open and what has not upgraded, and frees the port', async () => {
    const it = await UnderTest.start()
    const [open, waiting] = [await it.open(), await RawWebSocket.connect(it.port)]
    const { port } = it
    await it.listener.stop()
    await eventually(() => open.isClosed && waiting.isClosed && it.closed === 1)
    const next = new TcpListener({ name: 'ws', host: '127.0.0.1', port, log })
    await next.start(() => undefined)
    await next.stop()
  })
})

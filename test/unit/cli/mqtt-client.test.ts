import { createServer, type Server, type Socket } from 'node:net'
import { Aedes } from 'aedes'
import mqttPacket, { type Packet } from 'mqtt-packet'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/cli/failure.ts'
import { type Answer, type IncomingMessage, MqttClient, type MqttVersion } from '../../../src/cli/mqtt-client.ts'
import { eventually } from '../../support/eventually.ts'
import { runSluice } from '../../support/run-sluice.ts'

async function listen(server: Server): Promise<number> {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('a TCP listener has a port')
  return address.port
}

/** The neutral broker: MQTT 3.1 and 3.1.1. */
async function openAedes() {
  const broker = await Aedes.createBroker()
  const server = createServer(broker.handle)
  const port = await listen(server)
  return {
    broker,
    port,
    async [Symbol.asyncDispose]() {
      await new Promise<void>(resolve => broker.close(resolve))
      server.close()
    },
  }
}

/** A broker of a few lines that answers as the test says. */
async function openScripted(
  version: MqttVersion,
  answer: (packet: Packet, reply: (packet: Packet) => void, socket: Socket) => void,
) {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    const parser = mqttPacket.parser({ protocolVersion: version })
    parser.on('packet', packet =>
      answer(packet, reply => socket.write(mqttPacket.generate(reply, { protocolVersion: version })), socket),
    )
    socket.on('data', chunk => parser.parse(chunk))
    socket.on('error', () => undefined)
  })
  const port = await listen(server)
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

const connack: Packet = { cmd: 'connack', sessionPresent: false, reasonCode: 0 }

function open(port: number, version: MqttVersion, onMessage: (message: IncomingMessage) => Answer = () => 'taken') {
  return MqttClient.connect(
    { host: '127.0.0.1', port, user: null, password: null, version, clientId: 'test' },
    onMessage,
  )
}

describe('against aedes', () => {
  test.each([
    [3, 0],
    [3, 1],
    [4, 0],
    [4, 1],
    [4, 2],
  ] as const)('MQTT level %i, QoS %i: everything published comes back once and in order', async (version, qos) => {
    await using aedes = await openAedes()
    const received: string[] = []
    const subscriber = await MqttClient.connect(
      { host: '127.0.0.1', port: aedes.port, user: null, password: null, version, clientId: 'subscriber' },
      ({ topic, payload }) => {
        received.push(`${topic} ${payload}`)
        return 'taken'
      },
    )
    await subscriber.subscribe(['a/#', 'b'], qos)
    const publisher = await open(aedes.port, version)
    const sent: Promise<void>[] = []
    const expected: string[] = []
    for (let index = 0; index < 200; index++) {
      await publisher.room()
      sent.push(publisher.publish({ topic: 'a/x', payload: Buffer.from(String(index)), qos, retain: false }))
      expected.push(`a/x ${index}`)
    }
    await Promise.all(sent)
    await eventually(() => received.length >= 200)
    expect(received).toEqual(expected)
    await publisher.end()
    await subscriber.end()
    expect(await subscriber.closed).toBeNull()
  })

  test('a refused login says so', async () => {
    await using aedes = await openAedes()
    aedes.broker.authenticate = (_client, _user, _password, done) => done(null, false)
    await expect(open(aedes.port, 4)).rejects.toThrow(/No MQTT session at 127\.0\.0\.1:\d+: not authorized/)
  })

  test('sluice pub and sub carry lines, files and topics', async () => {
    await using aedes = await openAedes()
    const subscribed = new Promise<void>(resolve => aedes.broker.once('subscribe', () => resolve()))
    const port = String(aedes.port)
    const subscribing = runSluice([
      'sub',
      '-t',
      'lines',
      '-v',
      '-q',
      '1',
      '-C',
      '3',
      '-W',
      '20',
      '-V',
      '3.1.1',
      '-p',
      port,
    ])
    await subscribed
    const publishing = runSluice(['pub', '-t', 'lines', '-l', '-q', '1', '-V', '3.1.1', '-p', port, '--json'], {
      stdin: 'one\ntwo\r\nthree',
    })
    expect(JSON.parse((await publishing).stdout)).toEqual({ topic: 'lines', qos: 1, published: 3 })
    expect(await subscribing).toEqual({ status: 0, stdout: 'lines one\nlines two\nlines three\n', stderr: '' })
  })

  test('sluice sub tells bytes that are no text as base64, and fails when less comes than was asked for', async () => {
    await using aedes = await openAedes()
    const subscribed = new Promise<void>(resolve => aedes.broker.once('subscribe', () => resolve()))
    const subscribing = runSluice([
      'sub',
      '-t',
      'b',
      '--json',
      '-C',
      '2',
      '-W',
      '1',
      '-V',
      '3.1.1',
      '-p',
      String(aedes.port),
    ])
    await subscribed
    aedes.broker.publish(
      { cmd: 'publish', topic: 'b', payload: Buffer.from([0xff, 0x00]), qos: 0, retain: false, dup: false },
      () => undefined,
    )
    const { status, stdout, stderr } = await subscribing
    expect(status).toBe(1)
    expect(JSON.parse(stdout)).toEqual({ topic: 'b', payload: '/wA=', encoding: 'base64', qos: 0, retain: false })
    expect(stderr).toBe('sluice: 1 of 2 messages came within 1 s.\n')
  })

  test('sluice pub keeps to its rate', async () => {
    await using aedes = await openAedes()
    const startedMs = performance.now()
    const { status } = await runSluice([
      'pub',
      '-t',
      'a',
      '-m',
      'x',
      '--repeat',
      '11',
      '--rate',
      '20',
      '-V',
      '3.1.1',
      '-p',
      String(aedes.port),
    ])
    expect(status).toBe(0)
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(500)
  })
})

describe('MQTT 5', () => {
  test('a refusal of the session, a message or a subscription gives the reason of the broker', async () => {
    await using refusing = await openScripted(5, (packet, reply) => {
      if (packet.cmd === 'connect')
        reply({
          cmd: 'connack',
          sessionPresent: false,
          reasonCode: 0x97,
          properties: { reasonString: 'too many clients' },
        })
    })
    await expect(open(refusing.port, 5)).rejects.toThrow(/too many clients/)
    await using broker = await openScripted(5, (packet, reply) => {
      if (packet.cmd === 'connect') reply(connack)
      if (packet.cmd === 'publish')
        reply({
          cmd: 'puback',
          messageId: packet.messageId ?? 0,
          reasonCode: 0x97,
          properties: { reasonString: 'queue is full' },
        })
      if (packet.cmd === 'subscribe') reply({ cmd: 'suback', messageId: packet.messageId ?? 0, granted: [0x87] })
    })
    const client = await open(broker.port, 5)
    await expect(client.publish({ topic: 'a', payload: Buffer.from('x'), qos: 1, retain: false })).rejects.toThrow(
      /refused the message to a: queue is full/,
    )
    await expect(client.subscribe(['secret/#'], 1)).rejects.toThrow(/refused the subscription to secret\/# \(0x87\)/)
    await client.end()
  })

  test('no more messages are open than the receive maximum of the broker', async () => {
    let open5 = 0
    let most = 0
    await using broker = await openScripted(5, (packet, reply) => {
      if (packet.cmd === 'connect') reply({ ...connack, properties: { receiveMaximum: 3 } })
      if (packet.cmd !== 'publish') return
      open5++
      most = Math.max(most, open5)
      setImmediate(() => {
        open5--
        reply({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 })
      })
    })
    const client = await open(broker.port, 5)
    const sent: Promise<void>[] = []
    for (let index = 0; index < 50; index++) {
      await client.room()
      sent.push(client.publish({ topic: 'a', payload: Buffer.from('x'), qos: 1, retain: false }))
    }
    await Promise.all(sent)
    await client.end()
    expect(most).toBe(3)
  })

  test('a QoS 2 message that is resent before its release is one message [MQTT-4.3.3-10]', async () => {
    const received: string[] = []
    const answers: string[] = []
    await using broker = await openScripted(5, (packet, reply) => {
      answers.push(packet.cmd)
      const message: Packet = {
        cmd: 'publish',
        topic: 'a',
        payload: 'x',
        qos: 2,
        retain: false,
        dup: false,
        messageId: 7,
      }
      if (packet.cmd === 'connect') {
        reply(connack)
        reply(message)
        reply({ ...message, dup: true })
      }
      if (packet.cmd === 'pubrec' && answers.filter(cmd => cmd === 'pubrec').length === 2)
        reply({ cmd: 'pubrel', messageId: 7 })
    })
    const client = await open(broker.port, 5, ({ payload }) => {
      received.push(payload.toString())
      return 'taken'
    })
    await eventually(() => answers.includes('pubcomp'))
    await client.end()
    expect(received).toEqual(['x'])
  })

  test('a broker that goes away ends what is waiting for it', async () => {
    await using broker = await openScripted(5, (packet, reply, socket) => {
      if (packet.cmd === 'connect') reply(connack)
      if (packet.cmd === 'publish') socket.destroy()
    })
    const client = await open(broker.port, 5)
    const message = { topic: 'a', payload: Buffer.from('x'), qos: 1, retain: false } as const
    await expect(client.publish(message)).rejects.toThrow(Failure)
    expect(await client.closed).toBeInstanceOf(Failure)
    await expect(client.publish(message)).rejects.toThrow(Failure)
    await client.room()
  })

  test.each([
    ['garbage', (socket: Socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['a closed connection', (socket: Socket) => socket.destroy()],
  ])('%s instead of an answer is a failure that names the address', async (_what, act) => {
    await using broker = await openScripted(5, (_packet, _reply, socket) => act(socket))
    await expect(open(broker.port, 5)).rejects.toThrow(/No MQTT session at 127\.0\.0\.1:\d+/)
  })
})

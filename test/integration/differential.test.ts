import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { Aedes } from 'aedes'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Peer as Broker, startMosquitto } from '../../scripts/peers.ts'
import { playSteps } from '../support/differential.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { MqttUnderTest } from '../support/wire.ts'
import { DIFFERENCES, type Peer, TRANSCRIPTS } from './differential-transcripts.ts'

/** aedes 1.2 speaks 3.1 and 3.1.1. */
const speaks = (peer: Peer, version: string) => peer === 'mosquitto' || version !== '5.0'

let directory: TempDir
let sluice: MqttUnderTest
let mosquitto: Broker
let aedes: { readonly broker: Aedes; readonly server: Server }

const portOf = (peer: Peer): number => {
  if (peer === 'mosquitto') return mosquitto.port
  const address = aedes.server.address()
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

beforeAll(async () => {
  directory = await tempDir()
  sluice = await MqttUnderTest.start()
  mosquitto = await startMosquitto({ directory: directory.path })
  const broker = await Aedes.createBroker()
  const server = createServer(broker.handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  aedes = { broker, server }
})

afterAll(async () => {
  await new Promise<void>(resolve => aedes?.broker.close(resolve) ?? resolve())
  aedes?.server.close()
  await mosquitto?.stop()
  await sluice?.[Symbol.asyncDispose]()
  await directory?.remove()
})

test('a difference is explained for transcripts there are', () => {
  const known = new Set(TRANSCRIPTS.map(({ version, name }) => `${version}: ${name}`))
  expect(known.size).toBe(TRANSCRIPTS.length)
  for (const { versions, names } of DIFFERENCES)
    for (const version of versions) for (const name of names) expect(known).toContain(`${version}: ${name}`)
})

describe('the same conversation with Sluice, mosquitto and aedes', () => {
  for (const [n, { name, version, steps }] of TRANSCRIPTS.entries()) {
    test(`${version}: a client ${name}`, async () => {
      const peers = (['mosquitto', 'aedes'] as const).filter(peer => speaks(peer, version))
      const [ours = [], ...theirs] = await Promise.all(
        [sluice.port, ...peers.map(portOf)].map(port => playSteps(port, steps(`d${n}`))),
      )
      for (const [index, peer] of peers.entries()) {
        const heard = theirs[index] ?? []
        const difference = DIFFERENCES.find(
          each => each.peer === peer && each.versions.includes(version) && each.names.includes(name),
        )
        if (difference === undefined) expect(heard, `${peer} differs and nothing says why`).toEqual(ours)
        else expect(heard, `${peer} does not differ: ${difference.does}`).not.toEqual(ours)
      }
    })
  }
})

import mqttPacket, { type Packet } from 'mqtt-packet'
import { expect } from 'vitest'
import { bytes, packet, text, type WireClient } from '../../support/wire.ts'

/** CONNECT of 3.1.1, clean session, keep alive 0. */
export const connect311 = (clientId: string, flags = '02', ...payload: Buffer[]): Buffer =>
  packet(0x10, text('MQTT'), '04', flags, '00 00', text(clientId), ...payload)

/** CONNECT of 5.0, clean start, keep alive 0. */
export const connect5 = (clientId: string, properties = '00', flags = '02', ...payload: Buffer[]): Buffer =>
  packet(0x10, text('MQTT'), '05', flags, '00 00', properties, text(clientId), ...payload)

export const CONNECT_311 = connect311('c1')
export const CONNACK_311 = bytes('20 02 00 00')
/** CONNACK of 3.1.1 with session present. */
export const RESUMED_311 = bytes('20 02 01 00')
/** CONNECT of 3.1.1 without clean session. */
export const KEPT_311 = connect311('c1', '00')
export const CONNECT_5 = connect5('c1')
/** Receive maximum 64, retain, 1 MiB packets, 16 topic aliases, wildcards, subscription identifiers, shared subscriptions. */
export const CONNACK_5 = packet(
  0x20,
  '00 00 13',
  '21 00 40',
  '25 01',
  '27 00 10 00 00',
  '22 00 10',
  '28 01',
  '29 01',
  '2a 01',
)
/** CONNACK of 5.0 with session present. */
export const RESUMED_5 = Buffer.from(CONNACK_5)
RESUMED_5[2] = 1
export const DISCONNECT = bytes('e0 00')

export const subscribe311 = (packetId: string, filter: string, qos: string): Buffer =>
  packet(0x82, packetId, text(filter), qos)
export const subscribe5 = (packetId: string, filter: string, options: string): Buffer =>
  packet(0x82, packetId, '00', text(filter), options)
export const suback311 = (packetId: string, code: string): Buffer => packet(0x90, packetId, code)
export const suback5 = (packetId: string, code: string): Buffer => packet(0x90, packetId, '00', code)

/** PUBLISH of 3.1.1; `packetId` empty: QoS 0. */
export const publish311 = (topic: string, payload: string, first = 0x30, packetId = ''): Buffer =>
  packet(first, text(topic), bytes(packetId), Buffer.from(payload))
export const publish5 = (topic: string, payload: string, first = 0x30, packetId = '', properties = '00'): Buffer =>
  packet(first, text(topic), bytes(packetId), properties, Buffer.from(payload))
export const puback = (packetId: string): Buffer => packet(0x40, packetId)
/** PUBREC, PUBREL and PUBCOMP; of 5.0 with a reason code, if there is one. */
export const pubrec = (packetId: string, reason = ''): Buffer => packet(0x50, packetId, bytes(reason))
export const pubrel = (packetId: string, reason = ''): Buffer => packet(0x62, packetId, bytes(reason))
export const pubcomp = (packetId: string, reason = ''): Buffer => packet(0x70, packetId, bytes(reason))
export const disconnect5 = (reason: string): Buffer => packet(0xe0, reason, '00')

/** The SUBACK of a 5.0 client with these codes; returns the reason string that says why one of them is a refusal. */
export async function hearsRefusal(client: WireClient, ...granted: number[]): Promise<string> {
  const heard = await client.hearsPacket()
  const parser = mqttPacket.parser({ protocolVersion: 5 })
  let suback: Packet | null = null
  parser.on('packet', parsed => {
    suback = parsed
  })
  parser.parse(heard)
  expect(suback).toMatchObject({ cmd: 'suback', granted, properties: { reasonString: expect.any(String) } })
  return heard.toString()
}

/** Waits for a CONNACK that lets the client in, whatever else it says, and returns it. */
export async function letIn(client: WireClient, connect: Buffer): Promise<Buffer> {
  const connack = await client.says(connect).hearsPacket()
  expect(connack[0]).toBe(0x20)
  expect(connack[3]).toBe(0)
  return connack
}

/** The last thing a 5.0 client hears: DISCONNECT with that reason, and the close. */
export async function hearsDisconnect(client: WireClient, reason: number, what = ''): Promise<void> {
  const heard = await client.hearsPacket()
  expect([heard[0], heard[2]], what).toEqual([0xe0, reason])
  await client.hearsClose()
}

/** The last thing a client hears that is not let in: CONNACK of 5.0 with that reason and without a session, and the close. */
export async function hearsRefusedConnack(client: WireClient, reason: number, what = ''): Promise<void> {
  const heard = await client.hearsPacket()
  expect([heard[0], heard[2], heard[3]], what).toEqual([0x20, 0, reason])
  await client.hearsClose()
}

/** Two bytes as they are written in packets: `00 07`. */
export const hex16 = (n: number): string => [n >> 8, n & 255].map(byte => byte.toString(16).padStart(2, '0')).join(' ')

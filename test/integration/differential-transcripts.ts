/* Conversations that are played against Sluice, mosquitto and aedes alike, and why they end differently where they do. */
import type { Step } from '../support/differential.ts'
import { type Level, listed, Speaker } from '../support/speaker.ts'
import { bytes, packet, text } from '../support/wire.ts'

export type Peer = 'mosquitto' | 'aedes'

export type Version = '3.1' | '3.1.1' | '5.0'

export interface Transcript {
  readonly name: string
  readonly version: Version
  /** `unique` begins every topic and client identifier, so that transcripts do not meet. */
  readonly steps: (unique: string) => readonly Step[]
}

/** What another broker does instead, and which clause says who is right, or leaves it open. */
export interface Difference {
  readonly peer: Peer
  readonly versions: readonly Version[]
  /** Names of transcripts. */
  readonly names: readonly string[]
  readonly does: string
  readonly because: string
}

const VERSIONS = { 3: '3.1', 4: '3.1.1', 5: '5.0' } as const
const NONE = bytes('00')

const ack = (first: number, id: string) => packet(first, id)
const DISCONNECT = bytes('e0 00')

function transcript(name: string, level: Level, steps: (speaker: Speaker) => readonly Step[]): Transcript {
  return { name, version: VERSIONS[level], steps: unique => steps(new Speaker(level, unique)) }
}

/** The same in 3.1.1 and 5.0. */
function both(name: string, steps: (speaker: Speaker) => readonly Step[]): Transcript[] {
  return [transcript(name, 4, steps), transcript(name, 5, steps)]
}

const a = 'a'
const b = 'b'
const opens = (client: string, said: Buffer): Step => ({ client, opens: said })
const says = (client: string, ...said: Buffer[]): Step => ({ client, says: Buffer.concat(said) })
const answers = (client: string, first: number, reason?: number): Step =>
  reason === undefined ? { client, answers: first } : { client, answers: first, reason }
const drops = (client: string): Step => ({ client, drops: true })
const hears = (client: string, packets: number): Step => ({ client, hears: packets })

/** A client that is let in and then says something wrong. */
function wrong(name: string, level: Level, said: (speaker: Speaker) => Buffer): Transcript {
  return transcript(name, level, speaker => [opens(a, speaker.connect('a')), says(a, said(speaker))])
}

function wrongInBoth(name: string, said: (speaker: Speaker) => Buffer): Transcript[] {
  return [wrong(name, 4, said), wrong(name, 5, said)]
}

const CONNECTING: readonly Transcript[] = [
  ...both('connects, pings, leaves', s => [opens(a, s.connect('a')), says(a, bytes('c0 00')), says(a, DISCONNECT)]),
  transcript('connects, subscribes, publishes', 3, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    says(a, s.publish('t', 'x', 0x32, '00 07')),
    answers(a, 0x40),
  ]),
  ...both('connects without an identifier', s => [opens(a, s.connect(''))]),
  ...both('connects without an identifier and without a clean start', s => [opens(a, s.connect('', '00'))]),
  transcript('says a level nobody speaks', 4, s => [
    opens(a, packet(0x10, text('MQTT'), '06 02 00 00 00', s.topic('c'))),
  ]),
  transcript('says the level of 3.1 under the name of 3.1.1', 4, s => [
    opens(a, packet(0x10, text('MQTT'), '03 02 00 00', s.topic('c'))),
  ]),
  transcript('says another name', 4, s => [opens(a, packet(0x10, text('MQTX'), '04 02 00 00', s.topic('c')))]),
  ...wrongInBoth('connects twice', s => s.connect('a')),
  ...both('publishes before it connects', s => [opens(a, s.publish('t', 'x'))]),
  ...both('sets the reserved flag of CONNECT', s => [opens(a, s.connect('a', '03'))]),
  ...both('asks for a will of QoS 3', s => [opens(a, s.mortal('a', '1e'))]),
  ...both('says will QoS without a will', s => [opens(a, s.connect('a', '0a'))]),
  ...both('says will retain without a will', s => [opens(a, s.connect('a', '22'))]),
  ...both('has a password and no user name', s => [opens(a, s.connect('a', '42', '', text('secret')))]),
  ...both('has a user name and no password', s => [opens(a, s.connect('a', '82', '', text('user')))]),
  ...both('announces a user name that is not there', s => [opens(a, s.connect('a', '82'))]),
  transcript('announces a user name that is not there', 3, s => [opens(a, s.connect('a', '82'))]),
  ...both('says more than CONNECT has', s => [opens(a, s.connect('a', '02', '', bytes('00 01 61')))]),
  ...both('has an identifier that is no UTF-8', s => [opens(a, s.rawConnect(bytes('00 02 c3 28'), '02', ''))]),
  ...both('has U+0000 in its identifier', s => [opens(a, s.rawConnect(bytes('00 03 61 00 62'), '02', ''))]),
  ...both('comes a second time under its identifier', s => [
    opens(a, s.connect('a')),
    opens(b, s.connect('a')),
    says(b, bytes('c0 00')),
  ]),
  transcript('says receive maximum 0', 5, s => [opens(a, s.connect('a', '02', '21 00 00'))]),
  transcript('says maximum packet size 0', 5, s => [opens(a, s.connect('a', '02', '27 00 00 00 00'))]),
  transcript('says a property twice', 5, s => [opens(a, s.connect('a', '02', '21 00 01 21 00 01'))]),
  transcript('says a property of another packet', 5, s => [opens(a, s.connect('a', '02', '23 00 01'))]),
  transcript('says a property there is not', 5, s => [opens(a, s.connect('a', '02', '7e 01'))]),
  transcript('asks for an authentication method', 5, s => [opens(a, s.connect('a', '02', '15 00 01 61'))]),
  transcript('has authentication data without a method', 5, s => [opens(a, s.connect('a', '02', '16 00 01 61'))]),
  transcript('says request problem information 2', 5, s => [opens(a, s.connect('a', '02', '17 02'))]),
]

const WILLS: readonly Transcript[] = [
  ...both('is gone and leaves a will', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['will', '01'])),
    opens(b, s.mortal('b', '0e')),
    drops(b),
    hears(a, 3),
  ]),
  ...both('leaves and takes its will along', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['will', '01'])),
    opens(b, s.mortal('b', '0e')),
    says(b, DISCONNECT),
  ]),
  ...both('leaves a will that is retained', s => [
    opens(b, s.mortal('b', '26')),
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['will', '00'])),
    drops(b),
    hears(a, 3),
    says(a, s.subscribe('00 02', ['will', '00'])),
  ]),
  transcript('leaves with its will', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['will', '00'])),
    opens(b, s.mortal('b', '06', '', '01 01 03 00 01 63')),
    says(b, bytes('e0 01 04')),
    hears(a, 3),
  ]),
  transcript('comes back before its will is due', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['will', '00'])),
    opens(b, s.mortal('b', '06', '11 00 00 00 3c', '18 00 00 00 3c')),
    drops(b),
    opens(b, s.connect('b', '00', '11 00 00 00 3c')),
  ]),
  ...both('has a will for a filter', s => [
    opens(a, s.connect('a', '06', '', ...(s.level === 5 ? [NONE] : []), s.topic('#'), text('gone'))),
  ]),
]

const PUBLISHING: readonly Transcript[] = [
  ...[0, 1, 2].flatMap(qos =>
    [0, 1, 2].flatMap(granted =>
      both(`publishes at QoS ${qos} to a subscription at QoS ${granted}`, s => [
        opens(a, s.connect('a')),
        opens(b, s.connect('b')),
        says(b, s.subscribe('00 01', ['t', `0${granted}`])),
        says(a, s.publish('t', 'x', 0x30 | (qos << 1), qos === 0 ? '' : '00 07')),
        ...(qos === 2 ? [says(a, ack(0x62, '00 07'))] : []),
        hears(b, 3),
        answers(b, 0x40),
        answers(b, 0x50),
        answers(b, 0x70),
      ]),
    ),
  ),
  ...both('sends a QoS 2 message twice before its PUBREL, and once after', s => [
    opens(a, s.connect('a')),
    opens(b, s.connect('b')),
    says(b, s.subscribe('00 01', ['t', '00'])),
    says(a, s.publish('t', '1', 0x34, '00 07')),
    says(a, s.publish('t', '1', 0x3c, '00 07')),
    says(a, ack(0x62, '00 07')),
    hears(b, 3),
    says(a, s.publish('t', '2', 0x34, '00 07')),
    says(a, ack(0x62, '00 07')),
  ]),
  ...both('sends a QoS 1 message twice under one packet id', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '00'])),
    says(a, s.publish('t', '1', 0x32, '00 07')),
    says(a, s.publish('t', '1', 0x3a, '00 07')),
  ]),
  ...both('publishes what nobody has subscribed to', s => [
    opens(a, s.connect('a')),
    says(a, s.publish('t', 'x', 0x32, '00 07')),
  ]),
  ...both('publishes nothing at all', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '00'])),
    says(a, s.publish('t', '')),
  ]),
  ...wrongInBoth('releases a message it has not sent', () => ack(0x62, '00 09')),
  ...wrongInBoth('acknowledges a message it has not been sent', () => ack(0x40, '00 09')),
  ...wrongInBoth('answers with PUBREC what it has not been sent', () => ack(0x50, '00 09')),
  ...wrongInBoth('answers with PUBCOMP what it has not been sent', () => ack(0x70, '00 09')),
  ...wrongInBoth('publishes at QoS 3', s => s.publish('t', 'x', 0x36, '00 07')),
  ...wrongInBoth('sets DUP at QoS 0', s => s.publish('t', 'x', 0x38)),
  ...wrongInBoth('publishes under packet id 0', s => s.publish('t', 'x', 0x32, '00 00')),
  ...wrongInBoth('publishes to no topic', s => packet(0x30, '00 00', ...(s.level === 5 ? [NONE] : []), 'x')),
  ...wrongInBoth('publishes to a filter with +', s => s.publish('+/t', 'x')),
  ...wrongInBoth('publishes to a filter with #', s => s.publish('#', 'x')),
  ...wrongInBoth('has U+0000 in its topic', s => s.publish('t\0', 'x')),
  ...wrongInBoth('has a topic that is no UTF-8', s =>
    packet(0x30, '00 02 c3 28', ...(s.level === 5 ? [NONE] : []), 'x'),
  ),
  ...wrongInBoth('has a topic longer than the packet', () => packet(0x30, '00 09 61')),
  ...wrongInBoth('has a PUBACK of packet id 0', () => ack(0x40, '00 00')),
  ...wrongInBoth('sets flags of PUBREL to 0', () => ack(0x60, '00 01')),
  transcript('has its properties forwarded as they are', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '00'])),
    says(a, s.publish('t', 'x', 0x30, '', '01 01 03 00 01 74 08 00 01 72 09 00 02 00 ff')),
    says(a, s.publish('t', 'x', 0x30, '', '26 00 01 62 00 01 31 26 00 01 61 00 01 32 26 00 01 62 00 01 33')),
  ]),
  wrong('has a wildcard in its response topic', 5, s => s.publish('t', 'x', 0x30, '', '08 00 03 61 2f 23')),
  wrong('sends a subscription identifier', 5, s => s.publish('t', 'x', 0x30, '', '0b 01')),
  wrong('says payload format indicator 2', 5, s => s.publish('t', 'x', 0x30, '', '01 02')),
  wrong('sends message expiry twice', 5, s => s.publish('t', 'x', 0x30, '', '02 00 00 00 0a 02 00 00 00 0a')),
  wrong('sends a session expiry in PUBLISH', 5, s => s.publish('t', 'x', 0x30, '', '11 00 00 00 0a')),
  wrong('has properties longer than the packet', 5, s => packet(0x30, s.topic('t'), '05 26 00')),
  wrong('sends its properties length in too many bytes', 5, s => packet(0x30, s.topic('t'), '80 00')),
  wrong('uses topic alias 0', 5, s => s.publish('t', 'x', 0x30, '', '23 00 00')),
  wrong('uses a topic alias above the maximum', 5, s => s.publish('t', 'x', 0x30, '', '23 ff ff')),
  wrong('uses a topic alias it has not set', 5, () => packet(0x30, '00 00', listed('23 00 01'), 'x')),
  transcript('sets a topic alias and uses it', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['#', '00'])),
    says(a, s.publish('t', '1', 0x30, '', '23 00 01')),
    says(a, packet(0x30, '00 00', listed('23 00 01'), '2')),
    says(a, s.publish('u', '3', 0x30, '', '23 00 01')),
    says(a, packet(0x30, '00 00', listed('23 00 01'), '4')),
  ]),
]

const SUBSCRIBING: readonly Transcript[] = [
  ...both('subscribes to several filters at once', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 05', ['a', '00'], ['b/+', '01'], ['c/#', '02'])),
    says(a, s.publish('b/1', 'x', 0x32, '00 07')),
    answers(a, 0x40),
  ]),
  ...both('subscribes again at another QoS', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    says(a, s.subscribe('00 02', ['t', '00'])),
    says(a, s.publish('t', 'x', 0x32, '00 07')),
  ]),
  ...both('subscribes to overlapping filters', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '01'], ['+', '00'])),
    says(a, s.publish('t', 'x', 0x32, '00 07')),
    answers(a, 0x40),
  ]),
  ...both('unsubscribes from what it has and has not', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '00'], ['+', '00'])),
    says(a, s.unsubscribe('00 02', 't', 'never', 'T')),
    says(a, s.publish('t', 'x')),
    says(a, s.unsubscribe('00 03', '+')),
    says(a, s.publish('t', 'x')),
  ]),
  ...both('does not hear $-topics under wildcards', s => [
    opens(a, s.connect('a')),
    says(a, s.rawSubscribe('00 01', `+/${s.unique}/t`, '00')),
    says(a, packet(0x30, text(`$x/${s.unique}/t`), ...(s.level === 5 ? [NONE] : []), 'no')),
    says(a, packet(0x30, text(`x/${s.unique}/t`), ...(s.level === 5 ? [NONE] : []), 'yes')),
    says(a, s.rawSubscribe('00 02', `$x/${s.unique}/t`, '00')),
    says(a, packet(0x30, text(`$x/${s.unique}/t`), ...(s.level === 5 ? [NONE] : []), 'yes')),
  ]),
  ...both('hears the parent of a filter with #', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t/#', '00'])),
    says(a, s.publish('t', '1'), s.publish('t/', '2'), s.publish('t/a/b', '3'), s.publish('tt', '4')),
  ]),
  ...['a#', 'a+', '#/a', 'a/#/b', ''].flatMap(filter =>
    wrongInBoth(`subscribes to ${JSON.stringify(filter)}`, s => s.rawSubscribe('00 01', filter, '00')),
  ),
  ...wrongInBoth('subscribes to nothing', s => packet(0x82, '00 01', ...(s.level === 5 ? [NONE] : []))),
  ...wrongInBoth('subscribes at QoS 3', s => s.subscribe('00 01', ['t', '03'])),
  ...wrongInBoth('subscribes with reserved bits', s => s.subscribe('00 01', ['t', '40'])),
  ...wrongInBoth('subscribes under packet id 0', s => s.subscribe('00 00', ['t', '00'])),
  ...wrongInBoth('subscribes without options', s =>
    packet(0x82, '00 01', ...(s.level === 5 ? [NONE] : []), s.topic('t')),
  ),
  ...wrongInBoth('has U+0000 in its filter', s => s.subscribe('00 01', ['t\0', '00'])),
  ...wrongInBoth('sets flags of SUBSCRIBE to 0', s => {
    const said = s.subscribe('00 01', ['t', '00'])
    said[0] = 0x80
    return said
  }),
  ...wrongInBoth('unsubscribes from nothing', s => packet(0xa2, '00 01', ...(s.level === 5 ? [NONE] : []))),
  ...wrongInBoth('unsubscribes under packet id 0', s => s.unsubscribe('00 00', 't')),
  wrong('says retain handling 3', 5, s => s.subscribe('00 01', ['t', '30'])),
  wrong('says subscription identifier 0', 5, s => s.rawSubscribe('00 01', 't', '00', '0b 00')),
  transcript('wants nothing of its own', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '05'])),
    says(a, s.publish('t', 'mine', 0x32, '00 07')),
    opens(b, s.connect('b')),
    says(b, s.publish('t', 'its', 0x32, '00 07')),
    hears(a, 4),
  ]),
  transcript('gives its subscription an identifier', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.rawSubscribe('00 01', `${s.unique}/t`, '00', '0b 07')),
    says(a, s.publish('t', 'x')),
    says(a, s.rawSubscribe('00 02', `${s.unique}/t`, '00')),
    says(a, s.publish('t', 'y')),
  ]),
  transcript('wants the retain flag as it was published', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '08'])),
    says(a, s.publish('t', 'x', 0x31)),
    says(a, s.publish('t', '', 0x31)),
  ]),
  transcript('shares a subscription', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.rawSubscribe('00 01', `$share/g/${s.unique}/t`, '01')),
    says(a, s.publish('t', 'x', 0x32, '00 07')),
    answers(a, 0x40),
    says(a, packet(0xa2, '00 02 00', text(`$share/g/${s.unique}/t`))),
    says(a, s.publish('t', 'y')),
  ]),
  wrong('shares a subscription without its own messages', 5, s =>
    s.rawSubscribe('00 01', `$share/g/${s.unique}/t`, '05'),
  ),
  wrong('shares without a group', 5, s => s.rawSubscribe('00 01', '$share//t', '00')),
  wrong('shares in a group with a wildcard', 5, s => s.rawSubscribe('00 01', '$share/+/t', '00')),
  wrong('shares without a filter', 5, s => s.rawSubscribe('00 01', '$share/g', '00')),
]

const RETAINING: readonly Transcript[] = [
  ...both('is sent what was retained, until that is deleted', s => [
    opens(a, s.connect('a')),
    says(a, s.publish('t', '1', 0x31)),
    says(a, s.publish('t', '2', 0x33, '00 07')),
    hears(a, 2),
    says(a, s.subscribe('00 01', ['t', '00'])),
    says(a, s.publish('t', '3')),
    says(a, s.unsubscribe('00 02', 't')),
    says(a, s.subscribe('00 03', ['+', '02'])),
    answers(a, 0x40),
    says(a, s.publish('t', '', 0x31)),
    says(a, s.subscribe('00 04', ['t', '00'])),
  ]),
  ...both('is sent it again when it subscribes again', s => [
    opens(a, s.connect('a')),
    says(a, s.publish('t', 'x', 0x31)),
    says(a, s.subscribe('00 01', ['t', '00'])),
    says(a, s.subscribe('00 02', ['t', '00'])),
    says(a, s.publish('t', '', 0x31)),
  ]),
  ...[1, 2].map(handling =>
    transcript(`subscribes with retain handling ${handling}, twice`, 5, s => [
      opens(a, s.connect('a')),
      says(a, s.publish('t', 'x', 0x31)),
      says(a, s.subscribe('00 01', ['t', `${handling}0`])),
      says(a, s.subscribe('00 02', ['t', `${handling}0`])),
      says(a, s.publish('t', '', 0x31)),
    ]),
  ),
  ...[0, 1, 2].flatMap(qos =>
    [0, 1, 2].flatMap(granted =>
      both(`is sent what was retained at QoS ${qos} at a subscription at QoS ${granted}`, s => [
        opens(a, s.connect('a')),
        says(a, s.publish('t', 'old', 0x31)),
        says(a, s.publish('t', 'x', 0x31 | (qos << 1), qos === 0 ? '' : '00 07')),
        // Sluice answers when it is on the disk.
        ...(qos === 0 ? [] : [hears(a, 2)]),
        ...(qos === 2 ? [says(a, ack(0x62, '00 07'))] : []),
        opens(b, s.connect('b')),
        says(b, s.subscribe('00 01', ['t', `0${granted}`])),
        ...(Math.min(qos, granted) === 1 ? [answers(b, 0x40)] : []),
        ...(Math.min(qos, granted) === 2 ? [answers(b, 0x50), answers(b, 0x70)] : []),
        says(a, s.publish('t', 'later', 0x31)),
        says(a, s.publish('t', '', 0x31)),
      ]),
    ),
  ),
  transcript('wants nothing of its own, retained or not', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.publish('t', 'x', 0x31)),
    says(a, s.subscribe('00 01', ['t', '04'])),
    says(a, s.publish('t', '', 0x31)),
  ]),
  transcript('shares a subscription to what is retained', 5, s => [
    opens(a, s.connect('a')),
    says(a, s.publish('t', 'x', 0x31)),
    says(a, s.rawSubscribe('00 01', `$share/${s.unique}/${s.unique}/t`, '00')),
    says(a, s.publish('t', '', 0x31)),
  ]),
]

const SESSIONS: readonly Transcript[] = [
  transcript('comes back to its session', 4, s => [
    opens(a, s.connect('a', '00')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    says(a, DISCONNECT),
    opens(b, s.connect('b')),
    says(b, s.publish('t', '1', 0x32, '00 07'), s.publish('t', '2', 0x32, '00 08')),
    opens(a, s.connect('a', '00')),
    hears(a, 3),
    answers(a, 0x40),
    opens(a, s.connect('a')),
    opens(a, s.connect('a', '00')),
  ]),
  transcript('comes back to its session', 5, s => [
    opens(a, s.connect('a', '00', '11 00 00 00 3c')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    says(a, DISCONNECT),
    opens(b, s.connect('b')),
    says(b, s.publish('t', '1', 0x32, '00 07'), s.publish('t', '2', 0x32, '00 08')),
    opens(a, s.connect('a', '00', '11 00 00 00 3c')),
    hears(a, 3),
    answers(a, 0x40),
    opens(a, s.connect('a')),
    opens(a, s.connect('a', '00')),
  ]),
  ...both('is sent again what it has not answered', s => {
    const kept = s.level === 5 ? '11 00 00 00 3c' : ''
    return [
      opens(a, s.connect('a', '00', kept)),
      says(a, s.subscribe('00 01', ['t', '02'])),
      opens(b, s.connect('b')),
      says(b, s.publish('t', '1', 0x32, '00 07')),
      hears(b, 2),
      says(b, s.publish('t', '2', 0x34, '00 08')),
      hears(b, 3),
      says(b, ack(0x62, '00 08')),
      hears(b, 4),
      hears(a, 4),
      drops(a),
      opens(a, s.connect('a', '00', kept)),
      hears(a, 3),
      answers(a, 0x40),
      answers(a, 0x50),
      hears(a, 4),
      drops(a),
      opens(a, s.connect('a', '00', kept)),
      hears(a, 2),
      answers(a, 0x70),
      opens(a, s.connect('a', '00', kept)),
    ]
  }),
  transcript('ends its session with its connection', 5, s => [
    opens(a, s.connect('a', '00')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    says(a, DISCONNECT),
    opens(a, s.connect('a', '00')),
  ]),
  wrong('asks in DISCONNECT for a session it did not have', 5, () => bytes('e0 07 00 05 11 00 00 00 05')),
]

const LIMITS: readonly Transcript[] = [
  transcript('is sent nothing larger than it takes', 5, s => [
    opens(a, s.connect('a', '02', '27 00 00 00 20')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    opens(b, s.connect('b')),
    says(b, s.publish('t', 'x'.repeat(40), 0x32, '00 07')),
    says(b, s.publish('t', 'x', 0x32, '00 08')),
    hears(a, 3),
  ]),
  transcript('has no more in flight than its receive maximum', 5, s => [
    opens(a, s.connect('a', '02', '21 00 01')),
    says(a, s.subscribe('00 01', ['t', '01'])),
    opens(b, s.connect('b')),
    says(b, s.publish('t', '1', 0x32, '00 07')),
    says(b, s.publish('t', '2', 0x32, '00 08')),
    answers(a, 0x40),
    hears(a, 4),
    answers(a, 0x40),
  ]),
]

const OTHERS: readonly Transcript[] = [
  ...wrongInBoth('pings with a body', () => bytes('c0 01 00')),
  ...wrongInBoth('pings with flags', () => bytes('c1 00')),
  ...wrongInBoth('sends CONNACK', s => packet(0x20, '00 00', ...(s.level === 5 ? [NONE] : []))),
  ...wrongInBoth('sends SUBACK', s => packet(0x90, '00 01', ...(s.level === 5 ? [NONE] : []), '00')),
  ...wrongInBoth('sends PINGRESP', () => bytes('d0 00')),
  ...wrongInBoth('sends a packet of type 0', () => bytes('00 00')),
  ...wrongInBoth('sends a packet of type 15', () => bytes('f0 00')),
  ...wrongInBoth('leaves with flags', () => bytes('e1 00')),
  ...wrongInBoth('sends a remaining length of five bytes', () => bytes('30 80 80 80 80 01')),
  ...both('says something after it has left', s => [
    opens(a, s.connect('a')),
    says(a, s.subscribe('00 01', ['t', '00'])),
    opens(b, s.connect('b')),
    says(b, DISCONNECT, s.publish('t', 'x')),
  ]),
  wrong('leaves with a reason only servers have', 5, () => bytes('e0 01 8e')),
  wrong('leaves with a property twice', 5, () => bytes('e0 0a 00 08 1f 00 01 61 1f 00 01 61')),
  wrong('acknowledges with a reason there is not', 5, () => bytes('40 03 00 01 55')),
]

export const TRANSCRIPTS: readonly Transcript[] = [
  ...CONNECTING,
  ...WILLS,
  ...PUBLISHING,
  ...SUBSCRIBING,
  ...RETAINING,
  ...SESSIONS,
  ...LIMITS,
  ...OTHERS,
]

const BAD_FILTERS = ['a#', 'a+', '#/a', 'a/#/b', ''].map(filter => `subscribes to ${JSON.stringify(filter)}`)

function mosquitto(versions: readonly Version[], names: readonly string[], does: string, because: string): Difference {
  return { peer: 'mosquitto', versions, names, does, because }
}

/** aedes 1.2 does not speak 5.0. */
function aedes(names: readonly string[], does: string, because: string): Difference {
  return { peer: 'aedes', versions: ['3.1.1'], names, does, because }
}

const OLD = ['3.1.1'] as const
const NEW = ['5.0'] as const
const BOTH = ['3.1.1', '5.0'] as const

export const DIFFERENCES: readonly Difference[] = [
  mosquitto(
    OLD,
    ['says a level nobody speaks'],
    'answers 0x01 in the form of 3.1.1',
    'a level above 5 is a later version, which is told 0x84 in the form of 5.0 [MQTT-3.1.2-2]; 0x01 is for those 3.1.1 knows',
  ),
  mosquitto(
    NEW,
    ['has authentication data without a method'],
    'lets the client in',
    'section 3.1.2.11.10: a protocol error [MQTT-3.1.4-1]',
  ),
  mosquitto(BOTH, ['sets DUP at QoS 0'], 'delivers the message', 'DUP is 0 at QoS 0 [MQTT-3.3.1-2]'),
  mosquitto(NEW, ['has a wildcard in its response topic'], 'delivers the message', '[MQTT-3.3.2-14]'),
  mosquitto(NEW, ['sends a subscription identifier'], 'delivers the message', '[MQTT-3.3.4-6]'),
  mosquitto(
    NEW,
    ['says payload format indicator 2'],
    'delivers the message',
    'section 3.3.2.3.2 knows 0 and 1; anything else is a protocol error [MQTT-4.13.1-1]',
  ),
  mosquitto(
    NEW,
    ['subscribes to overlapping filters'],
    'delivers the message once for each filter',
    'left open by section 3.3.4; Sluice sends it once, at the highest QoS [MQTT-3.3.4-2]',
  ),
  mosquitto(
    NEW,
    ['wants nothing of its own, retained or not'],
    'sends the retained message to the client that published it',
    'nothing is forwarded to a connection of the publishing client [MQTT-3.8.3-3]',
  ),
  mosquitto(
    NEW,
    ['shares a subscription to what is retained'],
    'sends the retained message',
    'section 4.8.2: retained messages are not sent to a session when it first subscribes to a shared subscription',
  ),
  mosquitto(
    BOTH,
    BAD_FILTERS,
    'closes the connection',
    'SUBACK has a code for a filter that is not valid: 0x8F [MQTT-3.9.3-2], in 3.1.1 0x80: 3.1.1 [MQTT-3.8.4-5]; other filters of the client are not at fault',
  ),
  mosquitto(
    NEW,
    ['shares a subscription without its own messages'],
    'grants it',
    'No Local on a shared subscription is a protocol error [MQTT-3.8.3-4]',
  ),
  mosquitto(
    NEW,
    ['shares without a group', 'shares in a group with a wildcard', 'shares without a filter'],
    'grants it',
    'a share name has a character at least, no wildcard, and a filter behind it [MQTT-4.8.2-1], [MQTT-4.8.2-2]',
  ),
  mosquitto(BOTH, ['pings with a body'], 'answers the ping', 'section 3.12: PINGREQ has no payload [MQTT-4.13.1-1]'),
  mosquitto(
    BOTH,
    ['pings with flags'],
    'answers the ping',
    'reserved flags are checked [MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]',
  ),
  mosquitto(
    BOTH,
    ['sends SUBACK', 'sends PINGRESP'],
    'ignores it',
    'table 2-1: these packets go from server to client only; a protocol error [MQTT-4.13.1-1]',
  ),
  mosquitto(
    NEW,
    ['acknowledges with a reason there is not'],
    'ignores it',
    'a reason code that is not in the table is malformed [MQTT-3.4.2-1]',
  ),
  mosquitto(
    NEW,
    ['releases a message it has not sent', 'answers with PUBREC what it has not been sent'],
    'goes on with reason 0x00',
    'PUBCOMP and PUBREL have a reason for an unknown packet identifier, 0x92 [MQTT-3.7.2-1], [MQTT-3.6.2-1]',
  ),

  aedes(['connects without an identifier and without a clean start'], 'lets the client in', '3.1.1 [MQTT-3.1.3-8]'),
  aedes(['says a level nobody speaks'], 'closes without CONNACK', '3.1.1 [MQTT-3.1.2-2]'),
  aedes(['says the level of 3.1 under the name of 3.1.1'], 'lets the client in', '3.1.1 [MQTT-3.1.2-2]'),
  aedes(['asks for a will of QoS 3'], 'lets the client in', '3.1.1 [MQTT-3.1.2-14]'),
  aedes(['has a password and no user name'], 'lets the client in', '3.1.1 [MQTT-3.1.2-22]'),
  {
    peer: 'aedes',
    versions: ['3.1'],
    names: ['announces a user name that is not there'],
    does: 'closes the connection',
    because:
      '3.1, section 3.1: the user name may be missing though its flag is set; 3.1.1 has changed that (3.1.1 [MQTT-3.1.2-19])',
  },
  aedes(['says more than CONNECT has'], 'lets the client in', '3.1.1 [MQTT-3.1.4-1]'),
  aedes(
    ['has an identifier that is no UTF-8', 'has a topic that is no UTF-8'],
    'takes it, with the wrong bytes replaced',
    '3.1.1 [MQTT-1.5.3-1]',
  ),
  aedes(
    ['has U+0000 in its identifier', 'has U+0000 in its topic', 'has U+0000 in its filter'],
    'takes it',
    '3.1.1 [MQTT-1.5.3-2]',
  ),
  aedes(['has a will for a filter'], 'lets the client in', 'a topic has no wildcards: 3.1.1 [MQTT-4.7.1-1]'),
  aedes(
    ['sends a QoS 1 message twice under one packet id'],
    'delivers with the DUP flag of the publisher',
    '3.1.1 [MQTT-3.3.1-3]',
  ),
  aedes(['is sent again what it has not answered'], 'sends it again without DUP', '3.1.1 [MQTT-3.3.1-1]'),
  aedes(['sets DUP at QoS 0'], 'delivers the message', '3.1.1 [MQTT-3.3.1-2]'),
  aedes(
    ['publishes under packet id 0', 'subscribes under packet id 0', 'unsubscribes under packet id 0'],
    'answers under packet id 0',
    '3.1.1 [MQTT-2.3.1-1]',
  ),
  aedes(['has a PUBACK of packet id 0'], 'ignores it', 'there is no packet identifier 0: 3.1.1 [MQTT-4.8.0-1]'),
  aedes(['subscribes to "a#"', 'subscribes to "a+"'], 'grants it', '3.1.1 [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-3]'),
  aedes(
    ['subscribes to "#/a"', 'subscribes to "a/#/b"', 'subscribes to ""'],
    'closes the connection',
    'SUBACK has a code for a filter that is not valid: 3.1.1 [MQTT-3.8.4-5]',
  ),
  aedes(['unsubscribes from nothing'], 'answers with UNSUBACK', '3.1.1 [MQTT-3.10.3-2]'),
  aedes(['pings with a body'], 'answers the ping', 'section 3.12: PINGREQ has no payload; 3.1.1 [MQTT-4.8.0-1]'),
  aedes(['says something after it has left'], 'delivers it', '3.1.1 [MQTT-3.14.4-2]'),
]

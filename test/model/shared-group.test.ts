import fc from 'fast-check'
import { expect, test } from 'vitest'
import { connect5, DISCONNECT, subscribe5 } from '../protocol/mqtt/packets.ts'
import { eventually } from '../support/eventually.ts'
import { messageTo } from '../support/messages.ts'
import { MqttUnderTest, PINGREQ, packet, text, type WireClient } from '../support/wire.ts'

/*
 * Three clients that come, share a subscription, answer, refuse, go away for a while, leave and vanish as they like, against a model of who may hold what. After every
 * step, starts of the gateway and power cuts among them: whatever was acknowledged to its publisher is done, in flight at exactly one member, at QoS 2 kept for one that is away, or waits because no member has room.
 * What is done never comes again, unless the power went before the disk knew.
 */

const FILTER = '$share/g/jobs'
/** Messages a member takes without having answered. */
const ROOM = 3

const member = fc.nat(2)
const qos = fc.constantFrom<1 | 2>(1, 1, 2)
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('publish' as const), count: fc.integer({ min: 1, max: 5 }), qos }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('join' as const), member, qos, isKept: fc.boolean() }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('acknowledge' as const, 'acknowledge' as const, 'refuse' as const),
      member,
      index: fc.nat(ROOM - 1),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('disconnect' as const, 'vanish' as const, 'end' as const, 'unsubscribe' as const),
      member,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('restart' as const, 'power-cut' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

interface Delivery {
  readonly number: number
  readonly packetId: number
  readonly qos: number
  readonly isDup: boolean
}

/** A session, and the connection of its client while there is one. */
class Session {
  wire: WireClient | null = null
  isKept = false
  isMember = false
  /** Sent over this connection and not answered, by number of the message. */
  readonly inFlight = new Map<number, Delivery>()
  /** Sent at QoS 2 over an earlier connection and not answered; null: by an earlier run of the gateway. */
  readonly owed = new Map<number, Delivery | null>()

  get isTaking(): boolean {
    return this.wire !== null && this.isMember
  }

  /** It holds messages that go back to the group if it doesn't answer them. */
  get isAnswering(): boolean {
    return [...this.inFlight.values()].some(({ qos }) => qos === 1)
  }

  has(number: number): boolean {
    return this.inFlight.has(number) || this.owed.has(number)
  }

  /** Everything that has come by now. */
  async heard(): Promise<Delivery[]> {
    const deliveries: Delivery[] = []
    this.wire?.says(PINGREQ)
    for (;;) {
      const heard = await this.wire?.hearsPacket()
      const first = heard?.[0]
      if (heard === undefined || first === undefined || first === 0xd0) return deliveries
      if (first >> 4 !== 3) continue
      const at = 4 + heard.readUInt16BE(2)
      deliveries.push({
        number: Number(heard.subarray(at + 3).toString()),
        packetId: heard.readUInt16BE(at),
        qos: (first >> 1) & 3,
        isDup: (first & 8) !== 0,
      })
    }
  }

  /** The connection has ended: at QoS 1 what was in flight is for others, at QoS 2 it stays while the session does. */
  detached(): void {
    this.wire = null
    for (const [number, delivery] of this.inFlight) if (delivery.qos === 2) this.owed.set(number, delivery)
    this.inFlight.clear()
  }
}

class Run {
  #broker: MqttUnderTest
  readonly #sessions = [new Session(), new Session(), new Session()]
  /** Acknowledged to the publisher, and neither done nor gone with a session or the group. */
  readonly #open = new Set<number>()
  readonly #done = new Set<number>()
  /** Done when the power went: the disk may not know. */
  #forgotten = new Set<number>()
  readonly #wrong: string[] = []
  #next = 0

  constructor(broker: MqttUnderTest) {
    this.#broker = broker
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'publish') await this.#publish(step)
    else if ('member' in step) await this.#act(step, this.#sessions[step.member] ?? expect.fail('there are three'))
    else await this.#restart(step.kind === 'power-cut')
    // With its last member the group is gone, and what waited with it.
    if (!this.#sessions.some(({ isMember, isAnswering }) => isMember || isAnswering)) {
      for (const number of this.#open)
        if (!this.#sessions.some(session => session.has(number))) this.#open.delete(number)
    }
    await eventually(() => this.#agrees(), {
      what: `all of ${this.#open.size} messages with members, or members without room`,
      intervalMs: 0,
      deadlineMs: 2_000,
    })
    expect(this.#wrong).toEqual([])
  }

  async #publish({ count, qos }: Extract<Step, { kind: 'publish' }>): Promise<void> {
    const isWanted = this.#sessions.some(({ isMember }) => isMember)
    for (let n = 0; n < count; n++) {
      const { isRouted } = await this.#broker.core.router.publish(messageTo('jobs', `${this.#next}`, { qos }))
      expect(isRouted).toBe(isWanted)
      if (isWanted) this.#open.add(this.#next)
      this.#next++
    }
  }

  async #act(step: Extract<Step, { member: number }>, session: Session): Promise<void> {
    switch (step.kind) {
      case 'join':
        await this.#join(step, session)
        return
      case 'acknowledge':
      case 'refuse':
        this.#answer([...session.inFlight.values()][step.index], session, step.kind === 'refuse' ? '80' : '')
        return
      case 'unsubscribe':
        session.wire?.says(packet(0xa2, '00 07 00', text(FILTER)))
        if (session.wire !== null) session.isMember = false
        return
      case 'disconnect':
      case 'vanish':
        if (session.wire === null) return
        if (step.kind === 'disconnect') session.wire.says(DISCONNECT)
        else session.wire.close()
        session.detached()
        if (!session.isKept) this.#ended(session)
        await eventually(() => this.#broker.server.clientCount === this.#sessions.filter(({ wire }) => wire).length)
        return
      case 'end':
        await this.#broker.server.endSession(`c${step.member}`)
        session.detached()
        this.#ended(session)
        return
      default:
        step satisfies never
    }
  }

  async #restart(isPowerCut: boolean): Promise<void> {
    const before = this.#broker
    const directory = isPowerCut ? await before.powerCut() : await before.stop()
    await before[Symbol.asyncDispose]()
    this.#broker = await MqttUnderTest.start({ directory })
    if (isPowerCut) this.#forgotten = new Set(this.#done)
    for (const session of this.#sessions) {
      session.detached()
      if (!session.isKept) this.#ended(session)
      for (const number of session.owed.keys()) session.owed.set(number, null)
    }
  }

  async close(): Promise<void> {
    await this.#broker[Symbol.asyncDispose]()
  }

  async #join({ member, qos, isKept }: Extract<Step, { kind: 'join' }>, session: Session): Promise<void> {
    if (session.wire === null) {
      session.wire = await this.#broker.client()
      const properties = `08 21 00 0${ROOM} 11 00 00 ${isKept ? 'ff ff' : '00 00'}`
      const connack = await session.wire.says(connect5(`c${member}`, properties, '00')).hearsPacket()
      expect([connack[0], connack[2]]).toEqual([0x20, session.isKept ? 1 : 0])
      session.isKept = isKept
    }
    session.wire.says(subscribe5('ff ff', FILTER, `0${qos}`))
    session.isMember = true
  }

  #answer(delivery: Delivery | undefined, session: Session, reason: '' | '80'): void {
    if (delivery === undefined) return
    const { number, packetId, qos } = delivery
    const id = Buffer.from([packetId >> 8, packetId])
    session.wire?.says(packet(qos === 1 ? 0x40 : 0x50, id, ...(reason === '' ? [] : [reason])))
    if (qos === 2 && reason === '') session.wire?.says(packet(0x70, id))
    session.inFlight.delete(number)
    this.#open.delete(number)
    this.#done.add(number)
  }

  #ended(session: Session): void {
    for (const number of session.owed.keys()) this.#open.delete(number)
    session.owed.clear()
    session.isMember = false
    session.isKept = false
  }

  /** Takes in what has come; false: more has to come. */
  async #agrees(): Promise<boolean> {
    for (const session of this.#sessions) {
      for (const delivery of await session.heard()) this.#delivered(delivery, session)
    }
    let held = 0
    for (const { wire, inFlight, owed } of this.#sessions) {
      if (wire !== null && owed.size > 0) return false
      held += inFlight.size + owed.size
    }
    const hasRoom = this.#sessions.some(({ isTaking, inFlight }) => isTaking && inFlight.size < ROOM)
    return held === this.#open.size || !hasRoom
  }

  #delivered(delivery: Delivery, session: Session): void {
    const { number, packetId, isDup } = delivery
    const owed = session.owed.get(number)
    const isForgotten = this.#forgotten.delete(number)
    if (isForgotten) this.#open.add(number)
    if (!this.#open.has(number)) this.#wrong.push(`${number} came although it was done`)
    if (this.#sessions.some(other => other !== session && other.has(number)) || session.inFlight.has(number)) {
      this.#wrong.push(`${number} is with two at once`)
    }
    if (owed !== null && !isForgotten && isDup !== (owed !== undefined))
      this.#wrong.push(`${number} came with DUP ${isDup}`)
    if (owed != null && owed.packetId !== packetId) this.#wrong.push(`${number} came again under another packet id`)
    session.owed.delete(number)
    session.inFlight.set(number, delivery)
  }
}

test('what is acknowledged to a publisher is with exactly one member of the group, or waits for room, whoever comes and goes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async steps => {
      const run = new Run(await MqttUnderTest.start())
      try {
        for (const step of steps) await run.take(step)
      } finally {
        await run.close()
      }
    }),
    { numRuns: Number(process.env.SLUICE_MODEL_RUNS ?? 40) },
  )
}, 300_000)

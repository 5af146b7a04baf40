import { describe, expect, test } from 'vitest'
import type { Access, Credentials, Login } from '../../../src/core/access.ts'
import { AddressGate } from '../../../src/core/address-gate.ts'
import { eventually } from '../../support/eventually.ts'
import { accessWith, userEntry, usersOf } from '../../support/users.ts'

const stranger: Credentials = {
  clientId: 'c1',
  user: null,
  password: null,
  certificateUser: null,
  address: '192.0.2.7',
  isLocal: false,
}
const named = (user: string, password: string | null): Credentials => ({
  ...stranger,
  user,
  password: password === null ? null : Buffer.from(password),
})
const METER = userEntry('meter', 'secret', 'meters')
const DOOR = userEntry('door', 'knock')

const refused = (reason: string) => ({ kind: 'refused', reason })
const accepted = (user: string | null, ...groups: string[]) => ({ kind: 'accepted', identity: { user, groups } })

describe('who needs no proof', () => {
  const rules = [
    ['everybody', 'accepted', 'accepted'],
    ['local', 'accepted', 'refused'],
    ['nobody', 'refused', 'refused'],
  ] as const
  test.each(rules)('%s: on this machine %s, elsewhere %s', async (anonymous, local, remote) => {
    const access = accessWith({ anonymous })
    expect((await access.login({ ...stranger, isLocal: true })).kind).toBe(local)
    expect((await access.login(stranger)).kind).toBe(remote)
  })

  test('a name nobody can check is not taken for proved', () => {
    const login = accessWith({ anonymous: 'everybody' }).login(named('admin', 'x'))
    expect(login).toEqual(accepted(null))
  })

  test('where there are users, whoever gives a name must prove it; whoever gives none is still anonymous', async () => {
    const access = accessWith({ anonymous: 'everybody', users: usersOf(METER) })
    expect(await access.login(named('meter', 'wrong'))).toMatchObject(refused('bad-credentials'))
    expect(await access.login(named('nobody', 'secret'))).toMatchObject(refused('bad-credentials'))
    expect(access.login(stranger)).toEqual(accepted(null))
  })
})

describe('a certificate', () => {
  const users = usersOf(METER)
  const access = accessWith({ users })

  test('is proof enough, without a password; the users file adds groups and need not know it', () => {
    expect(access.login({ ...stranger, certificateUser: 'press-1' })).toEqual(accepted('press-1'))
    expect(access.login({ ...stranger, certificateUser: 'press-1', user: 'press-1' })).toEqual(accepted('press-1'))
    expect(access.login({ ...stranger, certificateUser: 'meter' })).toEqual(accepted('meter', 'meters'))
    expect(users.find('meter')?.lastLoginMs).toBeGreaterThan(0)
  })

  test('with another name in CONNECT is refused, also where anonymous clients are let in', () => {
    const credentials = { ...stranger, certificateUser: 'press-1', user: 'press-2' }
    for (const each of [access, accessWith({ anonymous: 'everybody' })]) {
      expect(each.login(credentials)).toMatchObject(refused('bad-credentials'))
    }
  })
})

describe('a password', () => {
  test('lets its user in with name and groups', async () => {
    const access = accessWith({ users: usersOf(METER, DOOR) })
    expect(await access.login(named('meter', 'secret'))).toMatchObject(accepted('meter', 'meters'))
    expect(await access.login(named('door', 'knock'))).toMatchObject(accepted('door'))
    expect(access.accepted).toBe(2)
  })

  test.each([
    ['wrong', named('meter', 'Secret')],
    ['empty', named('meter', '')],
    ['missing', named('meter', null)],
    ['of another user', named('meter', 'knock')],
    ['of nobody', named('constructor', 'secret')],
  ])('%s is refused, and nothing tells which names there are', async (_, credentials) => {
    const access = accessWith({ users: usersOf(METER, DOOR) })
    expect(await access.login(credentials)).toEqual({
      kind: 'refused',
      reason: 'bad-credentials',
      why: 'user name or password is wrong',
    })
    expect(access.refused['bad-credentials']).toBe(1)
  })

  test('for a name that is not there is checked like any other: the time tells nothing', async () => {
    const access = accessWith({ users: usersOf(METER) })
    for (const name of ['meter', 'nobody']) {
      const login = access.login(named(name, 'wrong'))
      expect(access.waiting).toBe(1)
      await login
    }
    const empty = accessWith({ users: usersOf() })
    expect(empty.login(named('nobody', 'wrong'))).toBeInstanceOf(Promise)
    expect(empty.waiting).toBe(1)
  })

  test('that was right before is answered at once, the same name with another password is not', async () => {
    const access = accessWith({ users: usersOf(METER) })
    expect(access.login(named('meter', 'secret'))).toBeInstanceOf(Promise)
    await access.login(named('meter', 'secret'))
    expect(access.login(named('meter', 'secret'))).toMatchObject(accepted('meter', 'meters'))
    expect(access.login(named('meter', 'secre'))).toBeInstanceOf(Promise)
    expect(access.login(named('mete', 'rsecret'))).toBeInstanceOf(Promise)
  })

  test('that is wrong is never remembered as right, however often it comes', async () => {
    const access = accessWith({ users: usersOf(METER) })
    for (let n = 0; n < 3; n++) {
      expect(await access.login(named('meter', 'wrong'))).toMatchObject(refused('bad-credentials'))
    }
  })
})

describe('many logins at once', () => {
  test('wait for one another; beyond limits.login_queue the answer is busy, and those that were right before do not wait', async () => {
    const access = accessWith({ users: usersOf(METER, DOOR), loginQueue: 3 })
    await access.login(named('door', 'knock'))
    const waiting = ['a', 'b'].map(password => access.login(named('meter', password)))
    const right = access.login(named('meter', 'secret'))
    expect(access.waiting).toBe(3)
    expect(access.login(named('meter', 'c'))).toMatchObject(refused('busy'))
    expect(access.login(named('door', 'knock'))).toMatchObject(accepted('door'))
    expect(await Promise.all(waiting)).toEqual([
      expect.objectContaining(refused('bad-credentials')),
      expect.objectContaining(refused('bad-credentials')),
    ])
    expect(await right).toMatchObject(accepted('meter', 'meters'))
    expect(access.waiting).toBe(0)
    expect(access.refused.busy).toBe(1)
  })

  test('who comes again with the same password while it waits takes no second place', async () => {
    const access = accessWith({ users: usersOf(METER), loginQueue: 1 })
    const logins = Array.from({ length: 50 }, () => access.login(named('meter', 'secret')))
    expect(access.waiting).toBe(1)
    for (const login of await Promise.all(logins)) expect(login).toMatchObject(accepted('meter', 'meters'))
  })
})

describe('a users file that changes', () => {
  test('while a password is being checked, the new one decides', async () => {
    const users = usersOf(METER)
    const access = accessWith({ users })
    const [first, second] = [access.login(named('meter', 'secret')), access.login(named('meter', 'new'))]
    users.replace([userEntry('meter', 'new')])
    expect(await first).toMatchObject(refused('bad-credentials'))
    expect(await second).toMatchObject(accepted('meter'))
  })

  const identityOf = (login: Login) => {
    if (login.kind !== 'accepted') throw new Error(login.why)
    return login.identity
  }

  test('keeps those whose password is the same, with their new groups, and no others', async () => {
    const users = usersOf(METER, DOOR, userEntry('valve', 'v'))
    const access = accessWith({ users, anonymous: 'everybody' })
    const [meter, door, valve] = await Promise.all(
      [named('meter', 'secret'), named('door', 'knock'), named('valve', 'v')].map(async each =>
        identityOf(await access.login(each)),
      ),
    )
    const [pressed, nobody] = [
      identityOf(await access.login({ ...stranger, certificateUser: 'press' })),
      identityOf(await access.login(stranger)),
    ]
    users.replace([
      { ...METER, groups: ['meters', 'alarms'] },
      userEntry('door', 'changed'),
      userEntry('press', 'p', 'shop'),
    ])
    if (meter === undefined || door === undefined || valve === undefined) throw new Error('not all came in')
    expect(access.review(meter)).toMatchObject({ user: 'meter', groups: ['meters', 'alarms'] })
    expect(access.review(door)).toBeNull()
    expect(access.review(valve)).toBeNull()
    expect(access.review(pressed)).toEqual({ user: 'press', groups: ['shop'] })
    expect(access.review(nobody)).toBe(nobody)
  })

  test('keeps passwords that were right before, and forgets those of users whose hash changed', async () => {
    const users = usersOf(METER, DOOR)
    const access = accessWith({ users })
    await Promise.all([access.login(named('meter', 'secret')), access.login(named('door', 'knock'))])
    users.replace([METER, userEntry('door', 'other')])
    expect(access.login(named('meter', 'secret'))).toMatchObject(accepted('meter', 'meters'))
    expect(await access.login(named('door', 'knock'))).toMatchObject(refused('bad-credentials'))
  })
})

describe('an address with too many wrong passwords', () => {
  const guess = (access: Access, n: number) => access.login(named('meter', `guess ${n}`))
  const gateOf = (loginFailures: number) =>
    new AddressGate({ connectionsPerS: 0, loginFailures, banMs: 60_000 }, () => performance.now())

  test('is banned: those it has waiting are not checked, and its later logins are refused, but for passwords that were right before', async () => {
    const access = accessWith({ users: usersOf(METER), gate: gateOf(2) })
    await access.login(named('meter', 'secret'))
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => guess(access, n)))
    const reasons = answers.map(answer => (answer.kind === 'refused' ? answer.reason : answer.kind))
    expect(reasons.slice(0, 2)).toEqual(['bad-credentials', 'bad-credentials'])
    expect(new Set(reasons.slice(2))).toEqual(new Set(['banned']))
    expect(await guess(access, 1)).toMatchObject(refused('banned'))
    expect(access.login(named('meter', 'secret'))).toMatchObject(accepted('meter', 'meters'))
    expect(await access.login({ ...named('meter', 'guess'), address: '192.0.2.8' })).toMatchObject(
      refused('bad-credentials'),
    )
  })

  test('waits longer for each answer', async () => {
    const access = accessWith({ users: usersOf(METER), gate: gateOf(3) })
    const waits: number[] = []
    for (let n = 0; n < 3; n++) {
      const from = performance.now()
      await guess(access, n)
      waits.push(performance.now() - from)
    }
    const [first = 0, second = 0, third = 0] = waits
    expect(first).toBeGreaterThan(80)
    expect(second).toBeGreaterThan(first)
    expect(third).toBeGreaterThan(second)
    await eventually(() => access.waiting === 0)
  })
})

import { describe, expect, test } from 'vitest'
import { Access, type Credentials } from '../../../src/core/access.ts'

const stranger: Credentials = {
  clientId: 'c1',
  user: null,
  password: null,
  certificateUser: null,
  address: '192.0.2.7',
  isLocal: false,
}

describe('who needs no proof', () => {
  const rules = [
    ['everybody', 'accepted', 'accepted'],
    ['local', 'accepted', 'refused'],
    ['nobody', 'refused', 'refused'],
  ] as const
  test.each(rules)('%s: on this machine %s, elsewhere %s', (anonymous, local, remote) => {
    const access = new Access({ anonymous })
    expect(access.login({ ...stranger, isLocal: true }).kind).toBe(local)
    expect(access.login(stranger).kind).toBe(remote)
  })

  test('a name nobody can check is not taken for proved', () => {
    const login = new Access({ anonymous: 'everybody' }).login({ ...stranger, user: 'admin' })
    expect(login).toEqual({ kind: 'accepted', identity: { user: null, groups: [] } })
  })
})

describe('a certificate', () => {
  const access = new Access({ anonymous: 'nobody' })

  test('is proof enough, without a password', () => {
    const accepted = { kind: 'accepted', identity: { user: 'press-1', groups: [] } }
    expect(access.login({ ...stranger, certificateUser: 'press-1' })).toEqual(accepted)
    expect(access.login({ ...stranger, certificateUser: 'press-1', user: 'press-1' })).toEqual(accepted)
  })

  test('with another name in CONNECT is refused, also where anonymous clients are let in', () => {
    const credentials = { ...stranger, certificateUser: 'press-1', user: 'press-2' }
    for (const each of [access, new Access({ anonymous: 'everybody' })]) {
      expect(each.login(credentials)).toMatchObject({ kind: 'refused', reason: 'bad-credentials' })
    }
  })
})

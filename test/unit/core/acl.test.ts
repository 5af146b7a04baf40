import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type AccessRule, AccessRules, type Permissions, type Subject } from '../../../src/core/acl.ts'

const RULE: AccessRule = {
  user: '*',
  group: null,
  publish: [],
  denyPublish: [],
  subscribe: [],
  denySubscribe: [],
  consume: [],
}
const ANYBODY: Subject = { user: null, clientId: 'dev-1', groups: [] }

/** What a subject may do by these rules. */
function permissions(rules: readonly Partial<AccessRule>[], subject: Partial<Subject> = {}): Permissions {
  return new AccessRules(rules.map(rule => ({ ...RULE, ...rule }))).for(
    { ...ANYBODY, ...subject },
    subject.clientId ?? ANYBODY.clientId,
  )
}

describe('access rules', () => {
  it('allow everything while there are none', () => {
    const may = permissions([])
    expect([may.mayPublish('a'), may.maySubscribe('#'), may.mayConsume('jobs')]).toEqual([true, true, true])
  })

  it('refuse what none of them decides, once there is one', () => {
    const may = permissions([{ denySubscribe: ['private/#'] }])
    expect([may.mayPublish('a'), may.maySubscribe('a'), may.mayConsume('jobs')]).toEqual([false, false, false])
  })

  it('refuse a filter that overlaps a denied one, and allow one that an allowed one covers as a whole', () => {
    const may = permissions([{ denySubscribe: ['private/#'] }, { subscribe: ['sensors/#', 'private/#', '+'] }])
    expect(may.maySubscribe('sensors/+/temperature')).toBe(true)
    expect(may.maySubscribe('sensors')).toBe(true)
    expect(may.maySubscribe('#')).toBe(false)
    expect(may.maySubscribe('private/x')).toBe(false)
    expect(may.maySubscribe('+')).toBe(false)
    expect(may.maySubscribe('other')).toBe(true)
    expect(may.maySubscribe('other/x')).toBe(false)
  })

  it('are asked in their order: the first that decides does', () => {
    const allow = { subscribe: ['sensors/#'] }
    const deny = { denySubscribe: ['sensors/secret/#'] }
    expect(permissions([allow, deny]).maySubscribe('sensors/#')).toBe(true)
    expect(permissions([deny, allow]).maySubscribe('sensors/#')).toBe(false)
    expect(permissions([deny, allow]).maySubscribe('sensors/open')).toBe(true)
    expect(permissions([{ ...allow, ...deny }]).maySubscribe('sensors/secret/1')).toBe(false)
  })

  it('for subscriptions say nothing of publishing, and the other way round', () => {
    const may = permissions([
      { denySubscribe: ['#'], publish: ['#'] },
      { subscribe: ['#'], denyPublish: ['#'] },
    ])
    expect([may.mayPublish('a'), may.maySubscribe('a')]).toEqual([true, false])
  })

  it('do not reach $SYS with wildcards at the first level [MQTT-4.7.2-1]', () => {
    expect(permissions([{ subscribe: ['#'] }]).maySubscribe('$SYS/#')).toBe(false)
    expect(permissions([{ subscribe: ['$SYS/broker/#'] }]).maySubscribe('$SYS/broker/uptime')).toBe(true)
  })

  it('are for a user, a group or everybody, those without a name included', () => {
    const rules = [
      { user: 'ann', publish: ['of-ann'] },
      { user: null, group: 'ops', publish: ['of-ops'] },
      { user: '*', publish: ['of-all'] },
    ]
    const topics = ['of-ann', 'of-ops', 'of-all']
    const published = (subject: Partial<Subject>): string[] => {
      const may = permissions(rules, subject)
      return topics.filter(topic => may.mayPublish(topic))
    }
    expect(published({})).toEqual(['of-all'])
    expect(published({ user: 'ann' })).toEqual(['of-ann', 'of-all'])
    expect(published({ user: 'bob', groups: ['ops', 'x'] })).toEqual(['of-ops', 'of-all'])
    expect(published({ user: 'ops' })).toEqual(['of-all'])
  })

  it('name the client by %c and the user by %u', () => {
    const rules = [{ publish: ['sensors/%c/#', 'by-%u/%c'], subscribe: ['commands/%u/+'], consume: ['inbox.%c'] }]
    const may = permissions(rules, { user: 'ann', clientId: 'dev-1' })
    expect(may.mayPublish('sensors/dev-1/t')).toBe(true)
    expect(may.mayPublish('sensors/dev-2/t')).toBe(false)
    expect(may.mayPublish('by-ann/dev-1')).toBe(true)
    expect(may.maySubscribe('commands/ann/+')).toBe(true)
    expect(may.maySubscribe('commands/+/+')).toBe(false)
    expect([may.mayConsume('inbox.dev-1'), may.mayConsume('inbox.dev-2')]).toEqual([true, false])
  })

  it.each(['+', '#', 'a/b', 'a+', 'a/'])('with %%c allow nothing to a client that calls itself %j', clientId => {
    const may = permissions([{ publish: ['%c/#', 'plain'], subscribe: ['%c/#', 'x/%c'], consume: ['%c'] }], {
      clientId,
    })
    expect(may.mayPublish('a/b')).toBe(false)
    expect(may.mayPublish('plain')).toBe(false)
    expect(may.maySubscribe(`${clientId}/#`)).toBe(false)
    expect(may.maySubscribe(`x/${clientId}`)).toBe(false)
    expect(may.mayConsume(clientId)).toBe(false)
  })

  it.each([null, ''])('with %%u mean nothing by that for a client without a user: %j', user => {
    const may = permissions([{ publish: ['%u/#', 'x/%u', 'plain'], denyPublish: ['%u'] }], { user })
    expect(['/x', 'x/', 'plain'].filter(topic => may.mayPublish(topic))).toEqual(['plain'])
  })

  it.each(['+', 'a/b'])('with %%u allow nothing to a user %j', user => {
    const may = permissions([{ publish: ['%u/#', 'plain'] }, { publish: ['further'] }], { user })
    expect(['a/b', '/x', 'plain', 'further'].filter(topic => may.mayPublish(topic))).toEqual(['further'])
  })

  it('with %c still deny what they deny to everybody: nobody escapes by the choice of a client identifier', () => {
    const rules = [{ publish: ['sensors/%c/#'], denyPublish: ['sensors/master/#'] }, { publish: ['sensors/#'] }]
    expect(permissions(rules, { clientId: 'a/b' }).mayPublish('sensors/master/1')).toBe(false)
    expect(permissions(rules, { clientId: 'a/b' }).mayPublish('sensors/other/1')).toBe(true)
  })

  it('with %c lead nobody below $SYS/ that calls itself so', () => {
    const may = permissions([{ subscribe: ['%c/#', 'x/%c/#'] }], { clientId: '$SYS' })
    expect([may.maySubscribe('$SYS/#'), may.maySubscribe('x/$SYS/#')]).toEqual([false, true])
  })

  it('take a client identifier as it is: no placeholder, name of an object or replacement pattern in it means anything', () => {
    for (const clientId of ['%u', '$&', '__proto__', '%c', "$'"]) {
      const may = permissions([{ publish: ['x/a%c/#'] }], { clientId, user: 'ann' })
      expect(may.mayPublish(`x/a${clientId}/1`)).toBe(true)
      expect(may.mayPublish('x/aann/1')).toBe(false)
    }
  })

  it('that change are asked anew by whoever holds permissions', () => {
    const rules = new AccessRules([{ ...RULE, publish: ['a'] }])
    const may = rules.for(ANYBODY, ANYBODY.clientId)
    expect([may.mayPublish('a'), may.mayPublish('b')]).toEqual([true, false])
    const { version } = rules
    rules.replace([{ ...RULE, publish: ['b'] }])
    expect([may.mayPublish('a'), may.mayPublish('b')]).toEqual([false, true])
    expect(rules.version).toBeGreaterThan(version)
    rules.replace([])
    expect([may.mayPublish('a'), may.mayPublish('b')]).toEqual([true, true])
  })

  it('look at the groups a client is in now', () => {
    const may = permissions([{ user: null, group: 'ops', publish: ['a'] }], { user: 'ann' })
    expect(may.mayPublish('a')).toBe(false)
    may.become({ user: 'ann', groups: ['ops'] })
    expect(may.mayPublish('a')).toBe(true)
  })

  it('never refuse a topic that a subscription they allow selects', () => {
    const words = fc.constantFrom('a', 'b', '$a')
    const filters = fc
      .array(fc.oneof(words, fc.constantFrom('+', '#')), { minLength: 1, maxLength: 4 })
      .map(levels => levels.join('/'))
      .filter(text => !text.includes('#/'))
    const rules = fc.array(
      fc.record({ subscribe: fc.array(filters, { maxLength: 2 }), denySubscribe: fc.array(filters, { maxLength: 2 }) }),
      { minLength: 1, maxLength: 5 },
    )
    fc.assert(
      fc.property(rules, filters, words, words, (written, filter, first, other) => {
        const may = permissions(written)
        // A topic of the filter: its wildcards stand for these words.
        const topic = filter.replace(/^[+#]/, first.replace('$', '')).replaceAll(/[+#]/g, other)
        if (may.maySubscribe(filter)) expect(may.maySubscribe(topic)).toBe(true)
      }),
      { numRuns: 3000 },
    )
  })
})

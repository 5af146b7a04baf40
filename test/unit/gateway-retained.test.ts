import { describe, expect, it } from 'vitest'
import { RunningRetained } from '../../src/gateway-retained.ts'
import { topicFilter } from '../../src/model/names.ts'
import { messageTo } from '../support/messages.ts'
import { MqttUnderTest } from '../support/wire.ts'

const TOPICS = 12_000
const ALL = topicFilter('#')

describe('retained messages over the API', () => {
  it('are gone for good when clear resolves, however many they were', async () => {
    await using first = await MqttUnderTest.start()
    const { router, retained } = first.core
    // Their names alone are more than one commit takes of what nobody waits for.
    const prefix = 'x'.repeat(100)
    for (let n = 0; n < TOPICS; n++) {
      await router.publish(messageTo(`${prefix}/${n}`, 'x', { qos: 0, retain: true }))
    }
    await router.publish(messageTo('other', 'x', { retain: true }))
    const api = new RunningRetained(first.core)
    expect(await api.clear(ALL, { isDryRun: true })).toBe(TOPICS + 1)
    expect(await api.clear(topicFilter(`${prefix}/+`), { isDryRun: false })).toBe(TOPICS)
    expect(retained.messages).toBe(1)
    await using second = await MqttUnderTest.start({ directory: await first.powerCut() })
    const [left, ...more] = await new RunningRetained(second.core).list(ALL, { after: '', limit: 10 })
    expect(left?.routing_key).toBe('other')
    expect(more).toEqual([])
  })
})

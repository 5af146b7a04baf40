import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fuzz } from '../../fault/scenarios/fuzz.ts'
import { seedsOf } from '../../fault/support/seeds.ts'
import { checkAnswers } from '../../support/check-answers.ts'
import { sayInProcess } from '../../support/in-process-client.ts'
import { conversation } from '../../support/mqtt-frames.ts'
import { seededRandom } from '../../support/mutation.ts'
import { MqttUnderTest } from '../../support/wire.ts'

const SEED = 20_261_126

describe('clients that say what nobody should', () => {
  for (const seed of seedsOf('fuzz')) {
    test(`20,000 frames, seed ${seed}`, async () => {
      const { frames, overSocket, reasons } = await fuzz({ frames: 20_000, seed, say: () => undefined })
      expect(frames).toBeGreaterThanOrEqual(20_000)
      expect(overSocket).toBeGreaterThan(0)
      expect([...reasons.keys()]).toEqual(expect.arrayContaining([0x81, 0x82]))
    })
  }

  test(`conversations cut off at every byte, and said in two pieces there, seed ${SEED}`, async () => {
    await using broker = await MqttUnderTest.start()
    const random = seededRandom(SEED)
    let port = 0
    const property = fc.asyncProperty(conversation, async ({ level, frames }) => {
      const said = Buffer.concat(frames).subarray(0, 400)
      for (let at = 1; at < said.length; at++) {
        const head = Buffer.from(said.subarray(0, at))
        const tail = Buffer.from(said.subarray(at))
        for (const chunks of [[head], [head, tail]]) {
          const { heard, isCutOff } = await sayInProcess(broker.server, { port: ++port, chunks, random })
          checkAnswers(heard, level, { mayBeCut: isCutOff })
        }
      }
    })
    await fc.assert(property, { seed: SEED, numRuns: 10 })
    expect(broker.server.clientCount).toBe(0)
  })
})

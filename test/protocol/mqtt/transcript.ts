import { test } from 'vitest'
import type { Authenticator } from '../../../src/core/access.ts'
import type { AccessRules } from '../../../src/core/acl.ts'
import type { RetainedLimits } from '../../../src/core/retained.ts'
import type { AuthenticationMethods } from '../../../src/protocol/mqtt/authentication.ts'
import type { MqttLimits } from '../../../src/protocol/mqtt/limits.ts'
import { MqttUnderTest, type WireClient } from '../../support/wire.ts'

export interface Scene {
  readonly client: WireClient
  /** Another connection. */
  readonly another: () => Promise<WireClient>
  readonly broker: MqttUnderTest
}

export interface Staging {
  readonly limits?: Partial<MqttLimits>
  readonly memoryBytes?: number
  readonly retained?: RetainedLimits
  readonly authenticator?: Authenticator
  readonly rules?: AccessRules
  readonly authenticationMethods?: AuthenticationMethods
}

/** A conversation in bytes, played against a fresh gateway on a port of its own. */
export function transcript(name: string, play: (scene: Scene) => Promise<unknown>, staging: Staging = {}): void {
  test(name, async () => {
    await using broker = await MqttUnderTest.start(staging)
    await play({ client: await broker.client(), another: () => broker.client(), broker })
  })
}

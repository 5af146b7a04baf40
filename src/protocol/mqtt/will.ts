import type { Router } from '../../core/router.ts'
import { isReservedTopic } from '../../core/routing-table.ts'
import type { Will } from '../../core/sessions.ts'
import { BrokerError } from '../../model/error.ts'
import { MQTT_EXCHANGE, PropertiesTag } from '../../model/message.ts'
import type { ConnectPacket, WillMessage } from './control-packet.ts'
import { ProtocolError, Reason } from './protocol-error.ts'
import { checkTopic, type TopicLimits } from './topic.ts'

/** Throws ProtocolError if the will is one that could not be published as it asks to be. */
export function checkWill(will: WillMessage, limits: TopicLimits): void {
  checkTopic(will.topic, limits)
  if (isReservedTopic(will.topic)) throw new ProtocolError(Reason.notAuthorized, 'the will is to go below $SYS/')
}

/** The will of a CONNECT as it is published some day [MQTT-3.1.2-7], 3.1.1 [MQTT-3.1.2-8]; null: it has none. */
export function willOf({ will, version, user }: ConnectPacket, clientId: string): Will | null {
  if (will === null) return null // 3.1.1 [MQTT-3.1.2-12]
  return {
    delayMs: will.delayS * 1000,
    message: {
      exchange: MQTT_EXCHANGE,
      key: will.topic,
      qos: will.qos, // [MQTT-3.1.2-9]
      retain: will.retain, // [MQTT-3.1.2-14], [MQTT-3.1.2-15], 3.1.1 [MQTT-3.1.2-16], 3.1.1 [MQTT-3.1.2-17]
      dup: false,
      priority: 0,
      clientId,
      user: user ?? '',
      expiryMs: will.expiryMs,
      propertiesTag: version === 5 ? PropertiesTag.mqtt5 : PropertiesTag.none,
      properties: will.properties, // [MQTT-3.1.3-10]
      payload: will.payload,
    },
  }
}

/** What a will takes in memory, bytes. */
export const willBytes = (will: Will | null): number =>
  will === null ? 0 : 512 + 2 * will.message.key.length + will.message.properties.length + will.message.payload.length

/** Publishes a will [MQTT-3.1.2-8], 3.1.1 [MQTT-3.1.2-8]. Resolves to the reason if it was refused, else to null. */
export async function publishWill(router: Router, { message }: Will): Promise<BrokerError | null> {
  try {
    await router.publish(message)
    return null
  } catch (error) {
    // Nobody is left to be told; the caller counts and logs it.
    if (error instanceof BrokerError) return error
    throw error
  }
}

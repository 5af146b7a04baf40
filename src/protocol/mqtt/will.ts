import type { Router } from '../../core/router.ts'
import { isReservedTopic } from '../../core/routing-table.ts'
import { BrokerError } from '../../model/error.ts'
import { MQTT_EXCHANGE, PropertiesTag } from '../../model/message.ts'
import type { ConnectPacket, WillMessage } from './control-packet.ts'
import { ProtocolError, Reason } from './protocol-error.ts'
import { checkTopic } from './topic.ts'

/** Throws ProtocolError if the will is one that could not be published as it asks to be. */
export function checkWill(will: WillMessage, topicLevels: number): void {
  checkTopic(will.topic, topicLevels)
  if (isReservedTopic(will.topic)) throw new ProtocolError(Reason.notAuthorized, 'the will is to go below $SYS/')
}

/**
 * Publishes the will of a connection that ended without a clean DISCONNECT [MQTT-3.1.2-8]. A will delay does not wait: the session ends with the
 * connection, and the earlier of the two decides [MQTT-3.1.3-9]. Resolves to the reason if it was refused, else to null.
 */
export async function publishWill(
  router: Router,
  will: WillMessage,
  { clientId, connect }: { clientId: string; connect: ConnectPacket },
): Promise<BrokerError | null> {
  try {
    await router.publish({
      exchange: MQTT_EXCHANGE,
      key: will.topic,
      qos: will.qos,
      retain: will.retain, // [MQTT-3.1.2-14], [MQTT-3.1.2-15], 3.1.1 [MQTT-3.1.2-16], 3.1.1 [MQTT-3.1.2-17]
      dup: false,
      priority: 0,
      clientId,
      user: connect.user ?? '',
      expiryMs: will.expiryMs,
      propertiesTag: connect.version === 5 ? PropertiesTag.mqtt5 : PropertiesTag.none,
      properties: will.properties,
      payload: will.payload,
    })
    return null
  } catch (error) {
    // Nobody is left to be told; the caller counts and logs it.
    if (error instanceof BrokerError) return error
    throw error
  }
}

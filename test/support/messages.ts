import type { QueueLimits } from '../../src/core/queue.ts'
import { type Message, MQTT_EXCHANGE, PropertiesTag } from '../../src/model/message.ts'

export const WIDE_LIMITS: QueueLimits = {
  messages: 10_000_000,
  bytes: 4 * 1024 ** 3,
  ageMs: Number.POSITIVE_INFINITY,
  onFull: 'reject',
}

export function messageTo(key: string, payload: string, changes: Partial<Message> = {}): Message {
  return {
    exchange: MQTT_EXCHANGE,
    key,
    qos: 1,
    retain: false,
    dup: false,
    priority: 0,
    clientId: 'sensor-1',
    user: '',
    expiryMs: null,
    propertiesTag: PropertiesTag.none,
    properties: Buffer.alloc(0),
    payload: Buffer.from(payload),
    ...changes,
  }
}

import { isUtf8 } from 'node:buffer'
import type { MessageDocument } from './api/contract.ts'
import type { Identities } from './core/identity.ts'
import { historyDocument } from './gateway-dead-letters.ts'
import { CLOCK_WORDS, decodeRecord, PropertiesTag } from './model/message.ts'
import { readMqtt5Properties } from './model/mqtt5-properties.ts'

/** A record in the words of the API. `attempts`: earlier deliveries; `mostBytes`: so much of its payload is shown. */
export function messageDocument(
  identities: Identities,
  bytes: Buffer,
  at: number,
  { attempts = 0, mostBytes = Number.POSITIVE_INFINITY }: { attempts?: number; mostBytes?: number } = {},
): MessageDocument {
  const { exchange, key, qos, priority, propertiesTag, properties, payload } = decodeRecord(bytes, at)
  const own = propertiesTag === PropertiesTag.mqtt5 ? readMqtt5Properties(properties, 0, properties.length) : null
  return {
    id: identities.messageId(bytes, at),
    exchange,
    routing_key: key,
    qos,
    redelivered: attempts > 0,
    attempts,
    priority,
    accepted_at: new Date(identities.wallTimeMs(bytes, at)).toISOString(),
    clock: CLOCK_WORDS[identities.trustOf(bytes, at)],
    age_ms: Math.round(identities.ageMs(bytes, at)),
    ...historyDocument(bytes, at, identities),
    content_type: own?.contentType ?? null,
    user_properties: own?.userProperties.map(([name, value]): [string, string] => [name, value]) ?? [],
    payload_bytes: payload.length,
    ...payloadText(payload, mostBytes),
  }
}

/** Text where the whole payload is text; cut between two characters. */
function payloadText(payload: Buffer, mostBytes: number): { payload: string; encoding: 'utf8' | 'base64' } {
  let end = Math.min(payload.length, mostBytes)
  if (!isUtf8(payload)) return { payload: payload.toString('base64', 0, end), encoding: 'base64' }
  // Bytes 10xxxxxx go on with a character that began before them.
  while (end < payload.length && end > 0 && ((payload[end] ?? 0) & 0xc0) === 0x80) end--
  return { payload: payload.toString('utf8', 0, end), encoding: 'utf8' }
}

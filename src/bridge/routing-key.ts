import { createHash } from 'node:crypto'

/**
 * How an MQTT topic is written as an AMQP routing key (contract.md section 5). Both put a dot between levels. `escaped` writes dots, stars, hashes
 * and percent signs within a level as escapes, so that it can be undone; `rabbitmq` leaves them, as RabbitMQ's MQTT plugin does (3.10: a.b/c → a.b.c).
 */
export type TopicCodec = 'escaped' | 'rabbitmq'

/** Makes the routing key of a message. */
export type RoutingKeyOf = (topic: string, clientId: string, user: string) => string

/** A short string of AMQP 0-9-1, bytes. */
export const ROUTING_KEY_BYTES = 255

const ESCAPES: Readonly<Record<string, string>> = { '%': '%25', '.': '%2E', '*': '%2A', '#': '%23' }
/** No escaped text contains this, so a hashed key is never taken for a reversible one. */
const HASH_MARK = '%sha256-'

/**
 * Compiles a template such as `{topic}` or `site.{client}.{topic.1+}`. `{topic.N}` is one level (from 0; empty where the topic has
 * fewer), `{topic.N+}` that level and all behind it. Text outside braces stands as it is; a client id, a user and the gateway are one word of the key
 * each, with everything escaped that would divide it.
 *
 * A key above 255 bytes keeps as many of its leading words as fit and ends in `%sha256-` and the SHA-256 of the whole key in hexadecimal: equal topics
 * keep equal keys, patterns on the first words still match, and the header `x-mqtt-topic` has the topic itself.
 */
export function compileRoutingKey({
  template,
  codec,
  gateway,
}: {
  template: string
  codec: TopicCodec
  gateway: string
}): RoutingKeyOf {
  const writeLevel = codec === 'escaped' ? escapeLevel : (level: string) => level
  const writeTopic = (levels: readonly string[]) => levels.map(writeLevel).join('.')
  const writeName = (name: string) => writeLevel(name).replaceAll('/', codec === 'escaped' ? '%2F' : '.')
  const parts = template.split(/\{([^{}]*)\}/).map((text, index): RoutingKeyOf => {
    if (index % 2 === 0) return () => text
    const level = /^topic\.(\d+)(\+?)$/.exec(text)
    if (level !== null) {
      const first = Number(level[1])
      const end = level[2] === '+' ? undefined : first + 1
      return topic => writeTopic(topic.split('/').slice(first, end))
    }
    switch (text) {
      case 'topic':
        return topic => writeTopic(topic.split('/'))
      case 'client':
        return (_topic, clientId) => writeName(clientId)
      case 'user':
        return (_topic, _clientId, user) => writeName(user)
      case 'gateway':
        return () => writeName(gateway)
      default:
        throw new TypeError(`a routing key template knows no {${text}}`)
    }
  })
  return (topic, clientId, user) => {
    let key = ''
    for (const part of parts) key += part(topic, clientId, user)
    return shorten(key)
  }
}

function escapeLevel(level: string): string {
  return level.replace(/[%.*#]/g, character => ESCAPES[character] ?? character)
}

function shorten(key: string): string {
  if (Buffer.byteLength(key) <= ROUTING_KEY_BYTES) return key
  const suffix = HASH_MARK + createHash('sha256').update(key).digest('hex')
  const room = ROUTING_KEY_BYTES - suffix.length
  const bytes = Buffer.from(key)
  const lastDot = bytes.lastIndexOf('.', room - 1)
  // Only whole words are kept, and with them the dot in front of the suffix; a first word that is longer goes altogether.
  return bytes.toString('utf8', 0, lastDot + 1) + suffix
}

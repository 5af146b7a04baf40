import { PropertiesTag } from '../model/message.ts'
import { readMqtt5Properties } from '../model/mqtt5-properties.ts'
import type { Headers } from './exchange.ts'

const NO_HEADERS: Headers = new Map()

/** What a headers exchange sees of a message: its MQTT 5 user properties, the last of each name. Of properties that cannot be read, nothing. */
export function messageHeaders(tag: PropertiesTag, bytes: Buffer, from: number, to: number): Headers {
  if (tag !== PropertiesTag.mqtt5 || from === to) return NO_HEADERS
  return new Map(readMqtt5Properties(bytes, from, to)?.userProperties ?? [])
}

import { encode, readSubscribe, readUnsubscribe, type Version } from './control-packet.ts'
import type { FrameReader } from './frame.ts'
import { Reason } from './protocol-error.ts'
import type { Session } from './session.ts'

/** SUBACK has one failure code in 3.1.1. */
const FAILURE = 0x80

/** SUBSCRIBE: binds each filter and gives the SUBACK, with one code per filter in their order [MQTT-3.8.4-6]. */
export function subscribe(session: Session, frame: FrameReader, version: Version): Buffer {
  const { packetId, requests } = readSubscribe(frame.bytes, frame.body, frame.end, version)
  const granted: number[] = []
  for (const request of requests) {
    const code = session.subscribe(request)
    granted.push(version < 5 && code > FAILURE ? FAILURE : code)
  }
  return encode({ cmd: 'suback', messageId: packetId, granted }, version)
}

/** UNSUBSCRIBE: unbinds each filter and gives the UNSUBACK, with one code per filter in 5.0 [MQTT-3.11.3-1]. */
export function unsubscribe(session: Session, frame: FrameReader, version: Version): Buffer {
  const { packetId, filters } = readUnsubscribe(frame.bytes, frame.body, frame.end, version)
  const granted: number[] = []
  for (const filter of filters) {
    granted.push(session.unsubscribe(filter) ? Reason.success : Reason.noSubscriptionExisted)
  }
  return encode({ cmd: 'unsuback', messageId: packetId, granted }, version)
}

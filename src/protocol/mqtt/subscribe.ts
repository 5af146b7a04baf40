import type { QoS } from '../../model/message.ts'
import { type ConnectPacket, encode, readSubscribe, readUnsubscribe, type Version } from './control-packet.ts'
import type { MqttCounters } from './counters.ts'
import type { FrameReader } from './frame.ts'
import { Reason } from './protocol-error.ts'
import type { Session } from './session.ts'

/** SUBACK has one failure code in 3.1.1: 3.1.1 [MQTT-3.9.3-2]. */
const FAILURE = 0x80

/**
 * SUBSCRIBE: takes each filter [MQTT-3.8.4-5] and gives the SUBACK [MQTT-3.8.4-1] under its packet identifier [MQTT-3.8.4-2], [MQTT-2.2.1-6], with one code per filter
 * [MQTT-3.8.4-6] in their order [MQTT-3.9.3-1]: the QoS granted or why it failed [MQTT-3.8.4-7], [MQTT-3.9.3-2]. In 5.0 a reason string says why the first refused one
 * was refused, if the client wants it and can take it [MQTT-3.1.2-29], [MQTT-3.9.2-1].
 */
export function subscribe(
  session: Session,
  frame: FrameReader,
  { connect, counters }: { connect: ConnectPacket; counters: MqttCounters },
): Buffer {
  const { version, wantsReasonStrings, maximumPacketSize } = connect
  const { packetId, requests } = readSubscribe(frame.bytes, frame.body, frame.end, version)
  const granted: number[] = []
  let why: string | null = null
  for (const request of requests) {
    const answer = session.subscribe(request)
    if (typeof answer === 'number') {
      granted.push(answer)
    } else {
      counters.refuseSubscription(answer.reason)
      granted.push(refusedCode(version, answer.reason, request.qos))
      why ??= answer.text
    }
  }
  if (version === 5 && why !== null && wantsReasonStrings) {
    const packet = encode({ cmd: 'suback', messageId: packetId, granted, properties: { reasonString: why } }, version)
    if (packet.length <= maximumPacketSize) return packet
  }
  return encode({ cmd: 'suback', messageId: packetId, granted }, version)
}

/** 3.1 has no code for a refusal: a SUBSCRIBE that is not authorized is answered as if it were, and brings nothing (3.1 section 3.8). */
function refusedCode(version: Version, reason: Reason, asked: QoS): number {
  if (version === 5) return reason
  return version === 3 && reason === Reason.notAuthorized ? asked : FAILURE
}

/**
 * UNSUBSCRIBE: ends each subscription [MQTT-3.10.4-6] and gives the UNSUBACK [MQTT-3.10.4-4] under its packet identifier [MQTT-3.10.4-5], with one code per filter in
 * 5.0 [MQTT-3.11.3-1], [MQTT-3.11.3-2].
 */
export function unsubscribe(session: Session, frame: FrameReader, version: Version): Buffer {
  const { packetId, filters } = readUnsubscribe(frame.bytes, frame.body, frame.end, version)
  const granted: number[] = []
  for (const filter of filters) {
    granted.push(session.unsubscribe(filter) ? Reason.success : Reason.noSubscriptionExisted)
  }
  return encode({ cmd: 'unsuback', messageId: packetId, granted }, version)
}

import { generate, type IPublishPacket } from 'mqtt-packet'

/** The property bytes of an MQTT 5 PUBLISH as mqtt-packet writes them, without the length in front: the form in which records keep them. */
export function mqtt5PropertyBytes(properties: NonNullable<IPublishPacket['properties']>): Buffer {
  const frame = generate(
    { cmd: 'publish', topic: 't', payload: '', qos: 0, dup: false, retain: false, properties },
    { protocolVersion: 5 },
  )
  let at = 1
  const variableInteger = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = frame.readUInt8(at++)
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  variableInteger()
  // Topic "t": two bytes of length and one letter.
  at += 3
  const length = variableInteger()
  return frame.subarray(at, at + length)
}

import { describe } from 'vitest'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  connect311,
  puback,
  publish5,
  publish311,
  suback5,
  subscribe5,
} from './packets.ts'
import { transcript } from './transcript.ts'

const RETAIN_AS_PUBLISHED = 0x08
const options = (qos: number, flags: number): string => Buffer.from([qos | flags]).toString('hex')

describe('Retain As Published', () => {
  transcript(
    'the retain flag is as published where the subscription wants that [MQTT-3.3.1-13], else clear [MQTT-3.3.1-12]',
    async ({ client, another }) => {
      await client
        .says(
          CONNECT_5,
          subscribe5('00 01', 'kept/zero', options(0, RETAIN_AS_PUBLISHED)),
          subscribe5('00 02', 'kept/one', options(1, RETAIN_AS_PUBLISHED)),
          subscribe5('00 03', 'clear/+', options(1, 0)),
        )
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'), suback5('00 03', '01'))
      const publisher = await another()
      await publisher
        .says(
          connect311('p'),
          publish311('kept/zero', 'a', 0x31),
          publish311('kept/zero', 'b', 0x30),
          publish311('kept/zero', 'c', 0x33, '00 01'),
        )
        .hears(CONNACK_311, puback('00 01'))
      await client.hears(
        publish5('kept/zero', 'a', 0x31),
        publish5('kept/zero', 'b', 0x30),
        publish5('kept/zero', 'c', 0x31),
      )
      await publisher
        .says(publish311('kept/one', 'a', 0x33, '00 02'), publish311('kept/one', 'b', 0x32, '00 03'))
        .hears(puback('00 02'), puback('00 03'))
      await client.hears(publish5('kept/one', 'a', 0x33, '00 01'), publish5('kept/one', 'b', 0x32, '00 02'))
      await publisher
        .says(publish311('clear/zero', 'a', 0x31), publish311('clear/one', 'b', 0x33, '00 04'))
        .hears(puback('00 04'))
      await client.hears(publish5('clear/zero', 'a', 0x30), publish5('clear/one', 'b', 0x32, '00 03'))
      await client.hearsNothing()
    },
  )
})

import type { Output } from './output.ts'
import type { PublishWriter } from './publish-frame.ts'

/** What a session uses of the connection it is attached to, from CONNACK to the end of that connection. */
export interface Attachment {
  readonly output: Output
  readonly writer: PublishWriter
  readonly isV5: boolean
  /** Messages of QoS 1 and 2 in flight at most, all sources together [MQTT-3.3.4-9]. Begins anew with each connection (5.0 section 4.9). */
  readonly window: number
}

import type { HeldBack } from './held-back.ts'
import type { Output } from './output.ts'
import type { PublishWriter } from './publish-frame.ts'

/** What a session uses of the connection it is attached to, from CONNACK to the end of that connection. */
export interface Attachment {
  readonly output: Output
  readonly writer: PublishWriter
  readonly isV5: boolean
  /** Where the session keeps packet ids on disk: what waits for that, and its writer. */
  readonly heldBack: { readonly packets: HeldBack; readonly writer: PublishWriter } | null
  /** Messages of QoS 1 and 2 in flight at most, all sources together [MQTT-3.3.4-9]. Begins anew with each connection (5.0 section 4.9). */
  readonly window: number
}

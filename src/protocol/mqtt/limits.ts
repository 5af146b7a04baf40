import type { Config } from '../../config/schema.ts'

/** The part of `limits` in the configuration that MQTT clients are held to; each key's answer is documented there. */
export type MqttLimits = Omit<Config['limits'], 'memoryBytes' | 'retained' | 'loginQueue' | 'addresses' | 'tls'>

/** What of it a client can reach with an answer of its own; as metrics call it. `names`: NAME_BYTES, `unfinished`: INCOMPLETE_PACKETS_BYTES. */
export type LimitName =
  | 'clients'
  | 'sessions'
  | 'session_state'
  | 'subscriptions_per_session'
  | 'topic'
  | 'topic_levels'
  | 'topic_aliases'
  | 'receive_max'
  | 'packet'
  | 'unfinished'
  | 'names'
  | 'connect_timeout'
  | 'refuse_disconnect_after'
  | 'output_per_client'
  | 'memory'

/** Before CONNECT is accepted no packet may be larger: whoever is not known yet gets little memory. */
export const CONNECT_PACKET_BYTES = 16 * 1024

/**
 * Bytes of packets that have begun and not ended, all connections together; more if four packets of `limits.packet` take more. Beyond it,
 * the connection that wants more is closed (5.0: DISCONNECT 0x97): otherwise 2,000 clients could hold 2,000 times `limits.packet`.
 */
export const INCOMPLETE_PACKETS_BYTES = 16 * 1024 * 1024
export const INCOMPLETE_PACKETS = 4

/** Acknowledgements and answers that may pile up beyond `limits.output_per_client` before a client that doesn't read is closed. */
export const CONTROL_ROOM_BYTES = 64 * 1024

/** Longest client identifier and user name, bytes: each is kept several times for as long as there is a session. */
export const NAME_BYTES = 256

/** How often a held message is tried again when nothing calls earlier. */
export const RETRY_INTERVAL_MS = 250

/** How long a closing connection may take to read the last packet. */
export const LINGER_MS = 1_000

/** What a closing connection may still send: the rest of a burst. Whoever sends more is not listening, and is reset. */
export const LINGER_BYTES = 256 * 1024

/** A client that holds less memory than this is not closed for the memory it holds. */
export const SMALL_HOLDING_BYTES = 16 * 1024

/** Connections beyond `limits.clients` that may be open at once, to be told in CONNACK why they can't come in, or to take a session over. */
export const UNIDENTIFIED_CONNECTIONS = 256

/** When those are taken, too, a new connection takes the place of the one that has gone longest without being let in, if that has had so long for it. */
export const UNIDENTIFIED_GRACE_MS = 1_000

/** Filters of one SUBSCRIBE or UNSUBSCRIBE; a packet with more ends its connection (5.0: DISCONNECT 0x97). A packet of 1 MiB could hold 200,000, half a second's work. */
export const REQUEST_FILTERS = 2_000

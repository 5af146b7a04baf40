import { randomUUID } from 'node:crypto'
import type { LoginRefusal } from '../../core/access.ts'
import { Authentication, type AuthenticationMethods } from './authentication.ts'
import { type ConnectPacket, encode } from './control-packet.ts'
import { type MqttLimits, NAME_BYTES } from './limits.ts'
import { LimitReached, ProtocolError, Reason } from './protocol-error.ts'
import { ConnackReturn } from './reply-code.ts'
import { checkWill } from './will.ts'

/** CONNACK return codes for those who don't speak 5.0; where there is none the connection is closed without a word: 3.1.1 [MQTT-3.2.2-6]. */
const RETURN_CODES = new Map<Reason, ConnackReturn>([
  [Reason.unsupportedProtocolVersion, ConnackReturn.unacceptableProtocolVersion],
  [Reason.clientIdentifierNotValid, ConnackReturn.identifierRejected],
  [Reason.serverUnavailable, ConnackReturn.serverUnavailable],
  [Reason.quotaExceeded, ConnackReturn.serverUnavailable],
  [Reason.badUserNameOrPassword, ConnackReturn.badUserNameOrPassword],
  [Reason.notAuthorized, ConnackReturn.notAuthorized],
  [Reason.banned, ConnackReturn.notAuthorized],
  [Reason.serverBusy, ConnackReturn.serverUnavailable],
])

/** How a client hears that it may not come in (5.0 section 3.2.2.2). */
export const LOGIN_REFUSALS: Record<LoginRefusal, Reason> = {
  'bad-credentials': Reason.badUserNameOrPassword,
  anonymous: Reason.notAuthorized,
  banned: Reason.banned,
  busy: Reason.serverBusy,
}

/** What a client is told in CONNACK and held to afterwards. */
export interface Terms {
  readonly clientId: string
  /** Silence after which it is taken for dead, milliseconds: one and a half keep alives [MQTT-3.1.2-22]; 0: never. */
  readonly silenceMs: number
  readonly keepAliveS: number
  /** How long its session outlives the connection, milliseconds; 0: it ends with it. */
  readonly sessionExpiryMs: number
  /** How it has to prove who it is; null: it doesn't. */
  readonly authentication: Authentication | null
}

/** What CONNACK leaves out for a client that takes no packet of its size: what holds where nothing is said, and offers. */
const DISPENSABLE = new Set([
  'retainAvailable',
  'topicAliasMaximum',
  'wildcardSubscriptionAvailable',
  'subscriptionIdentifiersAvailable',
  'sharedSubscriptionAvailable',
  'responseInformation',
])

/** A session expiry interval that stands for "never" (5.0 section 3.1.2.11.2). */
const NEVER_EXPIRES_S = 0xffffffff

/** Judges a CONNECT, but for who sent it. Throws ProtocolError with the reason code for CONNACK [MQTT-3.1.4-2]. */
export function agreeOn(
  connect: ConnectPacket,
  { limits, authenticationMethods }: { limits: MqttLimits; authenticationMethods: AuthenticationMethods },
): Terms {
  const { version } = connect
  if (connect.clientId === '' && (version === 3 || (version === 4 && !connect.isClean))) {
    throw new ProtocolError(Reason.clientIdentifierNotValid, 'an empty client identifier') // 3.1.1 [MQTT-3.1.3-7], 3.1.1 [MQTT-3.1.3-8]
  }
  for (const [what, name, reason] of [
    ['client identifier', connect.clientId, Reason.clientIdentifierNotValid],
    ['user name', connect.user ?? '', Reason.badUserNameOrPassword],
  ] as const) {
    if (Buffer.byteLength(name) > NAME_BYTES)
      throw new LimitReached('names', reason, `a ${what} of more than ${NAME_BYTES} bytes`)
  }
  // Whatever it calls itself [MQTT-3.1.3-5]; without a name it gets one, and is as if it had come with that [MQTT-3.1.3-6], [MQTT-3.1.3-7].
  const clientId = connect.clientId === '' ? `auto-${randomUUID()}` : connect.clientId
  const authentication = chosenAuthentication(connect, clientId, authenticationMethods)
  if (connect.will !== null) checkWill(connect.will, limits)
  const mostS = Math.max(1, Math.floor(limits.keepAliveMaxMs / 1000))
  const asked = connect.keepAliveS
  const isCut = version === 5 && limits.keepAliveMaxMs > 0 && (asked === 0 || asked > mostS)
  const keepAliveS = isCut ? mostS : asked // [MQTT-3.2.2-22]
  const sessionExpiryMs = agreedExpiryMs(connect, limits)
  return { clientId, keepAliveS, silenceMs: keepAliveS * 1500, sessionExpiryMs, authentication }
}

/** A session of 3.1 and 3.1.1 that is not clean has no end of its own: it gets the longest one there is. */
function agreedExpiryMs({ version, isClean, sessionExpiryS }: ConnectPacket, limits: MqttLimits): number {
  if (version < 5) return isClean ? 0 : limits.sessionExpiryMaxMs // 3.1.1 [MQTT-3.1.2-4], 3.1.1 [MQTT-3.1.2-6]
  return expiryMs(sessionExpiryS, limits)
}

/** A session expiry interval of 5.0 as far as `limits.session_expiry_max` grants it, milliseconds. */
export const expiryMs = (seconds: number, { sessionExpiryMaxMs }: MqttLimits): number =>
  seconds === NEVER_EXPIRES_S ? sessionExpiryMaxMs : Math.min(seconds * 1000, sessionExpiryMaxMs)

function chosenAuthentication(
  { authenticationMethod, user }: ConnectPacket,
  clientId: string,
  methods: AuthenticationMethods,
): Authentication | null {
  if (authenticationMethod === null) return null
  const method = methods.get(authenticationMethod)
  if (method === undefined) {
    throw new ProtocolError(Reason.badAuthenticationMethod, 'there is no such authentication method') // [MQTT-4.12.0-1]
  }
  return new Authentication(authenticationMethod, method, { clientId, user })
}

/**
 * The beginning of topics on which a client may wait for responses: `reply/` and its client identifier, in which `/`, `+`, `#` and `%` are written as in URLs,
 * so that it is one level (5.0 section 4.10.1).
 */
const responseInformation = (clientId: string): string =>
  `reply/${clientId.replace(/[%/+#]/g, character => encodeURIComponent(character))}`

/**
 * CONNACK for a client that is let in [MQTT-3.1.4-5], without other flags than session present [MQTT-3.2.2-1]; `proof` are the data its authentication ended
 * with, `sessionPresent`: it goes on with a session that was there [MQTT-3.2.2-2], [MQTT-3.2.2-3].
 */
export function connackAccepted(
  connect: ConnectPacket,
  {
    terms,
    limits,
    proof,
    sessionPresent,
  }: { terms: Terms; limits: MqttLimits; proof: Buffer | null; sessionPresent: boolean },
): Buffer {
  // 3.1 has no such flag: the byte is reserved there.
  if (connect.version === 3)
    return encode({ cmd: 'connack', sessionPresent: false, returnCode: ConnackReturn.accepted }, 4)
  if (connect.version === 4) return encode({ cmd: 'connack', sessionPresent, returnCode: ConnackReturn.accepted }, 4)
  const sessionExpiryInterval = Math.floor(terms.sessionExpiryMs / 1000)
  const connack = { cmd: 'connack', sessionPresent, reasonCode: Reason.success } as const
  const properties = {
    ...(connect.sessionExpiryS !== sessionExpiryInterval && { sessionExpiryInterval }),
    receiveMaximum: limits.receiveMax,
    retainAvailable: true,
    maximumPacketSize: limits.packetBytes,
    ...(limits.topicAliases > 0 && { topicAliasMaximum: limits.topicAliases }),
    ...(connect.clientId === '' && { assignedClientIdentifier: terms.clientId }), // [MQTT-3.2.2-16]
    wildcardSubscriptionAvailable: true,
    subscriptionIdentifiersAvailable: true,
    sharedSubscriptionAvailable: true,
    ...(terms.keepAliveS !== connect.keepAliveS && { serverKeepAlive: terms.keepAliveS }), // [MQTT-3.2.2-21]
    ...(connect.wantsResponseInformation && { responseInformation: responseInformation(terms.clientId) }), // [MQTT-3.1.2-28]
    ...terms.authentication?.properties(proof), // [MQTT-4.12.0-6]
  }
  const full = encode({ ...connack, properties }, 5)
  if (full.length <= connect.maximumPacketSize) return full
  const needed = Object.fromEntries(Object.entries(properties).filter(([name]) => !DISPENSABLE.has(name)))
  return encode({ ...connack, properties: needed }, 5)
}

/**
 * CONNACK for a client that is not let in, in the form of `level`, with a reason of its table [MQTT-3.2.2-8]; null where that version has no code for the reason,
 * 3.1.1 [MQTT-3.1.4-1], or the client takes no packet of its size. `most` is what it takes, bytes.
 */
export function connackRefused(
  reason: Reason,
  { level, why, most }: { level: number; why: string; most: number },
): Buffer | null {
  if (level < 5) {
    const returnCode = RETURN_CODES.get(reason)
    return returnCode === undefined ? null : encode({ cmd: 'connack', sessionPresent: false, returnCode }, 4)
  }
  const connack = { cmd: 'connack', sessionPresent: false, reasonCode: reason } as const // [MQTT-3.2.2-6]
  const packet = encode({ ...connack, properties: { reasonString: why } }, 5)
  if (packet.length <= most) return packet
  const short = encode(connack, 5) // [MQTT-3.2.2-19]
  return short.length <= most ? short : null // [MQTT-3.1.2-24]
}

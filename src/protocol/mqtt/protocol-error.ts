import type { LimitName } from './limits.ts'

/** Reason codes of MQTT 5.0 that Sluice sends (section 2.4); 3.1.1 knows only those of CONNACK_RETURN and SUBACK failure. */
export const Reason = {
  success: 0x00,
  noMatchingSubscribers: 0x10,
  noSubscriptionExisted: 0x11,
  continueAuthentication: 0x18,
  reAuthenticate: 0x19,
  unspecified: 0x80,
  malformedPacket: 0x81,
  protocolError: 0x82,
  implementationSpecific: 0x83,
  unsupportedProtocolVersion: 0x84,
  clientIdentifierNotValid: 0x85,
  badUserNameOrPassword: 0x86,
  notAuthorized: 0x87,
  serverUnavailable: 0x88,
  serverBusy: 0x89,
  banned: 0x8a,
  serverShuttingDown: 0x8b,
  badAuthenticationMethod: 0x8c,
  keepAliveTimeout: 0x8d,
  sessionTakenOver: 0x8e,
  topicFilterInvalid: 0x8f,
  topicNameInvalid: 0x90,
  packetIdentifierNotFound: 0x92,
  receiveMaximumExceeded: 0x93,
  topicAliasInvalid: 0x94,
  packetTooLarge: 0x95,
  quotaExceeded: 0x97,
  administrativeAction: 0x98,
  sharedSubscriptionsNotSupported: 0x9e,
} as const
export type Reason = (typeof Reason)[keyof typeof Reason]

/** The client broke the protocol or asked for what isn't there: its connection ends with this reason, nobody else notices. */
export class ProtocolError extends Error {
  readonly reason: Reason

  constructor(reason: Reason, message: string) {
    super(message)
    this.name = 'ProtocolError'
    this.reason = reason
  }
}

/** A limit is reached, and what goes beyond it ends the connection. */
export class LimitReached extends ProtocolError {
  readonly limit: LimitName

  constructor(limit: LimitName, reason: Reason, message: string) {
    super(reason, message)
    this.name = 'LimitReached'
    this.limit = limit
  }
}

/** The bytes cannot be parsed as the standard says (5.0 section 4.13.1). */
export function malformed(message: string): ProtocolError {
  return new ProtocolError(Reason.malformedPacket, message)
}

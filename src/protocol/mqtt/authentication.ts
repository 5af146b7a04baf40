/*
 * Enhanced authentication (5.0 section 4.12): a client proves in several steps who it is, by a method it names in CONNECT. No method is built in; whoever
 * makes the server hands in those it is to know.
 *
 *     CONNECT, or AUTH 0x19 while connected ──▶ exchange ──AUTH 0x18 both ways──▶ … ──▶ accepted: CONNACK, or AUTH 0x00
 *                                                                                   └─▶ refused: CONNACK 0x87, or DISCONNECT 0x87
 */
import { type AuthPacket, encode } from './control-packet.ts'
import { ProtocolError, Reason } from './protocol-error.ts'

/** What follows from what a client has sent. The data are for the client, in the form of the method; null: none. */
export type AuthenticationStep =
  | { readonly kind: 'continue'; readonly data: Buffer | null }
  | { readonly kind: 'accepted'; readonly data: Buffer | null }
  /** `why` is for the log, and for the client where it is refused in CONNACK. */
  | { readonly kind: 'refused'; readonly why: string }

/** Who a client says it is. */
export interface ClaimedIdentity {
  readonly clientId: string
  readonly user: string | null
}

/** One exchange: called with the data that began it, then with those of each answer; null: the client has sent none. Its state is its own. */
type AuthenticationExchange = (data: Buffer | null) => AuthenticationStep

/** Begins an exchange. Whatever the client sends, it answers at once and throws nothing. */
export type AuthenticationMethod = (claimed: ClaimedIdentity) => AuthenticationExchange

/** By name, as clients write it. */
export type AuthenticationMethods = ReadonlyMap<string, AuthenticationMethod>

/** The authentication of one client by the method it chose, from CONNECT to the end of its connection. */
export class Authentication {
  readonly #name: string
  readonly #method: AuthenticationMethod
  readonly #claimed: ClaimedIdentity
  /** Null: none is under way. */
  #exchange: AuthenticationExchange | null = null

  constructor(name: string, method: AuthenticationMethod, claimed: ClaimedIdentity) {
    this.#name = name
    this.#method = method
    this.#claimed = claimed
  }

  /** Takes the authentication data of CONNECT. */
  begin(data: Buffer | null): AuthenticationStep {
    this.#exchange = this.#method(this.#claimed)
    return this.#step(this.#exchange, data)
  }

  /** Takes an AUTH: the answer in an exchange under way [MQTT-4.12.0-3], or the beginning of a new one. Throws ProtocolError if it is neither. */
  proceed({ reason, method, data }: AuthPacket): AuthenticationStep {
    if (method !== this.#name) {
      throw new ProtocolError(Reason.protocolError, 'AUTH has another method than CONNECT') // [MQTT-4.12.0-5], [MQTT-4.12.1-1]
    }
    const isNew = reason === Reason.reAuthenticate
    if (this.#exchange === null ? !isNew : isNew) {
      throw new ProtocolError(Reason.protocolError, `AUTH 0x${reason.toString(16)} has no place here`)
    }
    return this.#exchange === null ? this.begin(data) : this.#step(this.#exchange, data)
  }

  #step(exchange: AuthenticationExchange, data: Buffer | null): AuthenticationStep {
    const step = exchange(data)
    if (step.kind !== 'continue') this.#exchange = null
    return step
  }

  /** The properties that every AUTH and a CONNACK that lets in have [MQTT-4.12.0-5]. */
  properties(data: Buffer | null): { authenticationMethod: string; authenticationData?: Buffer } {
    return { authenticationMethod: this.#name, ...(data !== null && { authenticationData: data }) }
  }

  /** AUTH: 0x18 asks for more [MQTT-4.12.0-2], 0x00 says that the client has proved itself again. */
  packet(reason: typeof Reason.success | typeof Reason.continueAuthentication, data: Buffer | null): Buffer {
    return encode({ cmd: 'auth', reasonCode: reason, properties: this.properties(data) }, 5)
  }
}

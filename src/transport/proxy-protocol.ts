/*
 * The header a proxy puts in front of a connection to say whose it is: PROXY protocol, versions 1 and 2 (haproxy's doc/proxy-protocol.txt; the sections
 * named here are its). Read strictly: whatever can't become a header ends the connection (section 2.1).
 */
import { isIPv4, isIPv6, SocketAddress } from 'node:net'

/** Whose connection it is. */
export type Told =
  /** `address` in its canonical form. */
  | { readonly kind: 'client'; readonly address: string; readonly port: number }
  /** The proxy's own: it looks whether somebody answers (LOCAL). */
  | { readonly kind: 'proxy' }
  /** That of somebody whose address the proxy does not tell (UNKNOWN, AF_UNSPEC, unix sockets). */
  | { readonly kind: 'unknown' }

export interface ProxyHeader {
  readonly told: Told
  /** Length of the header; the client's bytes begin behind it. */
  readonly bytes: number
}

const V1_START = Buffer.from('PROXY ')
/** With CR and LF (section 2.1). */
const V1_BYTES_MAX = 107

const V2_START = Buffer.from('\r\n\r\n\0\r\nQUIT\n')
/** Signature, version and command, family and transport, length of the rest (section 2.2). */
const V2_HEAD_BYTES = 16
/** Addresses and what a proxy adds to them; haproxy adds less than 1 KiB with everything switched on. */
const V2_REST_BYTES_MAX = 4096
const V2_LOCAL = 0x20
const V2_PROXY = 0x21
const V2_TCP4 = 0x11
const V2_TCP6 = 0x21
/** AF_UNSPEC; unix sockets, whose paths are those of the proxy's machine. */
const V2_UNTOLD = [0x00, 0x31]

/** Longest header. */
export const PROXY_HEADER_BYTES_MAX = V2_HEAD_BYTES + V2_REST_BYTES_MAX

/** The header at the beginning of what a proxy has sent so far; null: it is right up to here, and not whole. Throws RangeError with the reason when it can't become one. */
export function readProxyHeader(sent: Buffer): ProxyHeader | null {
  return sent[0] === V2_START[0] ? readV2(sent) : readV1(sent)
}

function readV1(sent: Buffer): ProxyHeader | null {
  expectStart(sent, V1_START)
  const end = sent.subarray(0, V1_BYTES_MAX).indexOf('\r\n')
  if (end < 0) {
    if (sent.length >= V1_BYTES_MAX) throw new RangeError(`its line does not end within ${V1_BYTES_MAX} bytes`)
    return null
  }
  const bytes = end + 2
  const [, family, source = '', target = '', sourcePort, targetPort, ...more] = sent
    .toString('latin1', 0, end)
    .split(' ')
  if (family === 'UNKNOWN') return { told: { kind: 'unknown' }, bytes }
  if ((family !== 'TCP4' && family !== 'TCP6') || more.length > 0) throw new RangeError('its line is none of version 1')
  const isAddress = family === 'TCP4' ? isIPv4 : isPlainIPv6
  if (!isAddress(source) || !isAddress(target)) throw new RangeError(`its line lacks two addresses of ${family}`)
  readPort(targetPort)
  return { told: client(source, readPort(sourcePort)), bytes }
}

/** Without a zone (`%eth0`), which means something on the proxy's machine only. */
function isPlainIPv6(text: string): boolean {
  return isIPv6(text) && !text.includes('%')
}

function readPort(digits = ''): number {
  const port = Number(digits)
  if (!(port >= 0 && port <= 65_535) || String(port) !== digits) throw new RangeError('a port in its line is none')
  return port
}

function readV2(sent: Buffer): ProxyHeader | null {
  expectStart(sent, V2_START)
  const [command, family = 0] = sent.subarray(V2_START.length)
  if (command !== undefined && command !== V2_LOCAL && command !== V2_PROXY) {
    throw new RangeError('it is neither of version 2 nor one of its commands')
  }
  if (sent.length < V2_HEAD_BYTES) return null
  const restBytes = sent.readUInt16BE(V2_HEAD_BYTES - 2)
  if (restBytes > V2_REST_BYTES_MAX)
    throw new RangeError(`it announces ${restBytes} bytes, more than ${V2_REST_BYTES_MAX}`)
  const bytes = V2_HEAD_BYTES + restBytes
  if (sent.length < bytes) return null
  // Whatever a LOCAL connection says of addresses is ignored.
  if (command === V2_LOCAL) return { told: { kind: 'proxy' }, bytes }
  if (V2_UNTOLD.includes(family)) return { told: { kind: 'unknown' }, bytes }
  if (family !== V2_TCP4 && family !== V2_TCP6) throw new RangeError('its family or transport is not TCP')
  return { told: readV2Client(sent.subarray(V2_HEAD_BYTES, bytes), family === V2_TCP4 ? 4 : 16), bytes }
}

/** Two addresses and two ports, the source first. */
function readV2Client(rest: Buffer, addressBytes: 4 | 16): Told {
  if (rest.length < 2 * addressBytes + 4) throw new RangeError('it is too short for its addresses')
  const port = rest.readUInt16BE(2 * addressBytes)
  if (addressBytes === 4) return client(rest.subarray(0, 4).join('.'), port)
  const groups = Array.from({ length: 8 }, (_, n) => rest.readUInt16BE(2 * n).toString(16))
  return client(groups.join(':'), port)
}

function client(address: string, port: number): Told {
  const family = isIPv4(address) ? 'ipv4' : 'ipv6'
  return { kind: 'client', address: new SocketAddress({ address, family }).address, port }
}

function expectStart(sent: Buffer, start: Buffer): void {
  const compared = Math.min(sent.length, start.length)
  if (sent.compare(start, 0, compared, 0, compared) !== 0) throw new RangeError('it does not begin like one')
}

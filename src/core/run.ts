import type { ErrorCode } from '../model/error.ts'
import type { PropertiesTag, QoS, RecordPrefix } from '../model/message.ts'

/**
 * A run: consecutive messages of one publisher with the same key, QoS and flags, still in the socket's chunk. The connection
 * owns one Run and refills it; nobody keeps a reference to it or to `bytes` after `publishRun` has returned.
 *
 * Message i occupies bytes[starts[i], ends[i]); its properties (without their length prefix) are bytes[properties[i], payloads[i])
 * and its payload bytes[payloads[i], ends[i]). Live receivers that speak `form` may copy whole frames as they are.
 */
export interface Run {
  bytes: Buffer
  count: number
  readonly starts: Uint32Array
  readonly properties: Uint32Array
  readonly payloads: Uint32Array
  readonly ends: Uint32Array
  /** Time to live of message i in milliseconds, 0 for none; read only while `expires` is true. */
  readonly expiries: Float64Array
  expires: boolean
  /** Which wire form the frames have, for receivers to compare with their own: opaque to core, but 0 means that there are no frames at all (a message from a cold edge): starts are meaningless then. */
  form: number
  qos: QoS
  retain: boolean
  dup: boolean
  propertiesTag: PropertiesTag
  /** Common part of the stored form; made by the connection once per topic, flags and QoS. */
  prefix: RecordPrefix
  /** Set by publishRun: ticket of the first accepted message; the others follow by one. 0: all are safe already. */
  firstTicket: number
  /** Set by publishRun when it accepted fewer than `count`: why message [accepted] was refused. */
  refusal: ErrorCode | null
}

export const RUN_CAPACITY = 1024

/** An empty run for a connection to fill; `prefix` is set before every publishRun. */
export function createRun(form: number, prefix: RecordPrefix): Run {
  return {
    bytes: Buffer.alloc(0),
    count: 0,
    starts: new Uint32Array(RUN_CAPACITY),
    properties: new Uint32Array(RUN_CAPACITY),
    payloads: new Uint32Array(RUN_CAPACITY),
    ends: new Uint32Array(RUN_CAPACITY),
    expiries: new Float64Array(RUN_CAPACITY),
    expires: false,
    form,
    qos: 0,
    retain: false,
    dup: false,
    propertiesTag: 0,
    prefix,
    firstTicket: 0,
    refusal: null,
  }
}

/** Makes `part` the messages [from, to) of a run, not published yet. */
export function copyPart(run: Run, from: number, to: number, part: Run): void {
  part.bytes = run.bytes
  part.count = to - from
  part.expires = run.expires
  part.form = run.form
  part.qos = run.qos
  part.retain = run.retain
  part.dup = run.dup
  part.propertiesTag = run.propertiesTag
  part.prefix = run.prefix
  part.firstTicket = 0
  part.refusal = null
  for (let i = from; i < to; i++) {
    part.starts[i - from] = run.starts[i] ?? 0
    part.properties[i - from] = run.properties[i] ?? 0
    part.payloads[i - from] = run.payloads[i] ?? 0
    part.ends[i - from] = run.ends[i] ?? 0
    part.expiries[i - from] = run.expiries[i] ?? 0
  }
}

/*
 * What passes between the queues and the store. All plain data; the store owns encoding, CRC, keys, replay and reopening.
 *
 * A queue is a row of entries with contiguous positions (0, 1, 2, … per queue, never reused). What was settled before it was
 * written leaves a hole. A segment covers positions [first, first + count); the entries present are marked in `present`.
 */

/** Where a segment is: the commit that wrote it and which part of that queue's share of the commit it is. */
export interface SegmentRef {
  readonly commit: number
  readonly part: number
}

/** One segment to be written by a commit. Entry i (position first + i) is present if bit i of `present` is set. */
export interface SegmentWrite {
  readonly queue: number
  readonly part: number
  readonly first: number
  readonly count: number
  /** Bit i (byte i >> 3, bit i & 7) set: entry i is written. */
  readonly present: Uint8Array
  /** Holds the records; record of entry i begins at offsets[i]. Its length is in the record. */
  readonly bytes: Buffer
  readonly offsets: Uint32Array
  /** One byte per entry: the binding's note. */
  readonly notes: Uint8Array
  /** One byte per entry: 1 if the same message (boot, seq) is also in another queue's segment of this commit: its body is stored once. */
  readonly shared: Uint8Array
}

/** A segment read back. */
export interface LoadedSegment {
  readonly ref: SegmentRef
  readonly first: number
  readonly count: number
  /** Holds the records, in its first `used` bytes; `giveMemory` takes it back. */
  readonly bytes: Buffer
  readonly used: number
  /** Offset of entry i's record in `bytes`; ABSENT where it was never written, is settled, or is damaged. */
  readonly offsets: Uint32Array
  readonly notes: Uint8Array
  /** Entries the index promised, unsettled, which could not be read (missing value, bad CRC): to be booked as dropped{damage}. */
  readonly damaged: number
  readonly damagedBytes: number
}

/** A segment as the index knows it. */
export interface SegmentInfo {
  readonly ref: SegmentRef
  readonly first: number
  /** Position behind its last entry. */
  readonly end: number
  readonly unsettled: number
  /** Of its records. */
  readonly bytes: number
}

export const ABSENT = 0xffff_ffff

/** A change of the settled marks of one written segment, as absolute values. */
export interface SegmentMarks {
  readonly queue: number
  readonly ref: SegmentRef
  /** Bit i set: entry i needs no delivery any more (settled, dropped, moved, never written). All set: the segment is deleted. */
  readonly settled: Uint8Array
  readonly isComplete: boolean
}

/** State keys are for core's own records (definitions, ledgers, sessions, retained): see store/keys.ts for the prefixes. Key and value are kept: never change their bytes. */
export type StateChange = { readonly key: Buffer; readonly value: Buffer | null }

/** Everything one commit writes: applied as a whole or not at all. */
export interface Commit {
  readonly segments: SegmentWrite[]
  readonly marks: SegmentMarks[]
  /** Absolute values only: replaying a change twice must do no harm. */
  readonly changes: StateChange[]
  /** Bytes publishers handed over in these segments, for the wear figure. */
  acceptedBytes: number
}

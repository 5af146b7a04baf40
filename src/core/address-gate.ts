/*
 * What is remembered of addresses: how fast they connect, and how often they failed to log in. Only wrong passwords that differ count as guesses: a device that keeps
 * coming with an old password is no attacker, and does not get those banned who share its address. Clients on this machine, of which there is no telling how many
 * a proxy stands for, are slowed down and never banned.
 */
import { addressGroup, isLoopback } from '../model/address.ts'

export interface AddressLimits {
  /** New connections of one address a second; 0: no limit. */
  readonly connectionsPerS: number
  /** Different wrong passwords after which an address is banned; 0: never. */
  readonly loginFailures: number
  /** How long the first time. */
  readonly banMs: number
}

/** The one that has been still for longest is forgotten for a new one. */
const ADDRESSES_MAX = 10_000
/** After so long without a new wrong password, those before count no more. */
const FORGET_MS = 10 * 60_000
/** Each further ban is twice as long, up to `limits.ban` times this. */
const LONGER_AT_MOST = 64
/** How long after its end a ban still makes the next one longer. */
const BAN_REMEMBERED_MS = 24 * 3_600_000
/** The answer to a wrong password waits: so long for the first, twice as long for each further, up to the most. */
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 5_000

interface Seen {
  /** Connections it may make now, and when that was reckoned. */
  tokens: number
  reckonedAtMs: number
  /** Wrong credentials since the last ban. */
  readonly guesses: Set<string>
  guessedAtMs: number
  bans: number
  bannedUntilMs: number
}

/** An address that may not connect. */
export interface Ban {
  readonly address: string
  readonly endsInMs: number
}

export class AddressGate {
  /** Connections closed before anything was read. */
  readonly refused = { banned: 0, rate: 0 }
  /** Bans since start. */
  banned = 0

  readonly #limits: AddressLimits
  readonly #monotonicMs: () => number
  /** By addressGroup; those touched last are last. */
  readonly #seen = new Map<string, Seen>()

  constructor(limits: AddressLimits, monotonicMs: () => number) {
    this.#limits = limits
    this.#monotonicMs = monotonicMs
  }

  /** Whether a new connection from there is to be looked at; counts it. */
  admits(address: string): boolean {
    if (this.isBanned(address)) {
      this.refused.banned++
      return false
    }
    const { connectionsPerS } = this.#limits
    if (connectionsPerS === 0) return true
    const nowMs = this.#monotonicMs()
    const seen = this.#touch(address)
    const gained = ((nowMs - seen.reckonedAtMs) * connectionsPerS) / 1000
    seen.tokens = Math.min(connectionsPerS, seen.tokens + gained)
    seen.reckonedAtMs = nowMs
    if (seen.tokens < 1) {
      this.refused.rate++
      return false
    }
    seen.tokens--
    return true
  }

  isBanned(address: string): boolean {
    if (this.#seen.size === 0) return false
    return (this.#seen.get(addressGroup(address))?.bannedUntilMs ?? 0) > this.#monotonicMs()
  }

  /** A login from there failed; `guess` stands for its name and password. Returns how long its answer should wait, milliseconds. */
  failed(address: string, guess: string): number {
    const nowMs = this.#monotonicMs()
    const seen = this.#touch(address)
    if (nowMs - seen.guessedAtMs > FORGET_MS) seen.guesses.clear()
    seen.guessedAtMs = nowMs
    const { loginFailures, banMs } = this.#limits
    const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** seen.guesses.size, LONGEST_PAUSE_MS)
    if (loginFailures === 0) return FIRST_PAUSE_MS
    if (seen.guesses.size < loginFailures) seen.guesses.add(guess)
    if (seen.guesses.size < loginFailures || isLocal(address)) return pauseMs
    if (nowMs - seen.bannedUntilMs > BAN_REMEMBERED_MS) seen.bans = 0
    seen.bannedUntilMs = nowMs + banMs * Math.min(2 ** seen.bans, LONGER_AT_MOST)
    seen.bans++
    seen.guesses.clear()
    this.banned++
    return pauseMs
  }

  /** Lets an address, as `bans` tells it, connect again; false: it is not banned. */
  unban(address: string): boolean {
    const seen = this.#seen.get(address)
    if (seen === undefined || seen.bannedUntilMs <= this.#monotonicMs()) return false
    return this.#seen.delete(address)
  }

  /** Those in force. */
  *bans(): Iterable<Ban> {
    const nowMs = this.#monotonicMs()
    for (const [address, { bannedUntilMs }] of this.#seen) {
      if (bannedUntilMs > nowMs) yield { address, endsInMs: bannedUntilMs - nowMs }
    }
  }

  #touch(address: string): Seen {
    const group = addressGroup(address)
    const nowMs = this.#monotonicMs()
    const seen = this.#seen.get(group) ?? {
      tokens: this.#limits.connectionsPerS,
      reckonedAtMs: nowMs,
      guesses: new Set<string>(),
      guessedAtMs: nowMs,
      bans: 0,
      bannedUntilMs: 0,
    }
    this.#seen.delete(group)
    const [oldest] = this.#seen.keys()
    if (this.#seen.size >= ADDRESSES_MAX && oldest !== undefined) this.#seen.delete(oldest)
    this.#seen.set(group, seen)
    return seen
  }
}

const isLocal = (address: string): boolean => address === '' || isLoopback(address)

import { setTimeout as delay } from 'node:timers/promises'
import { type Connection, open } from './clients.ts'
import type { LoadOrder, LoadResult } from './load.ts'
import { anonymousBytes, mark, usageBetween } from './usage.ts'

/* Connections that are opened, as fast as the broker takes them, and stay without a word. */

/** Connections on their way at once. */
const CONNECTING_AT_ONCE = 64
/** What the broker is given to come to rest before its memory is looked at. */
const SETTLE_MS = 1000

/** Opens them and closes them again. Rejects when the broker refuses one. */
export async function runIdle({ port, load, brokerPid }: LoadOrder): Promise<LoadResult> {
  const connections: Connection[] = []
  let opened = 0
  const openOneByOne = async () => {
    while (opened < load.idle) {
      const clientId = `bench-idle-${opened++}`
      connections.push(await open({ port, isEncrypted: load.isEncrypted, clientId, clean: true }))
    }
  }
  try {
    await delay(SETTLE_MS)
    const bytesBefore = brokerPid === null ? null : anonymousBytes(brokerPid)
    const start = mark(brokerPid)
    await Promise.all(Array.from({ length: CONNECTING_AT_ONCE }, openOneByOne))
    const end = mark(brokerPid)
    await delay(SETTLE_MS)
    const bytes = brokerPid === null ? null : anonymousBytes(brokerPid)
    const seconds = (end.atMs - start.atMs) / 1000
    return {
      ...usageBetween(start, end),
      sent: 0,
      acked: 0,
      received: 0,
      lost: 0,
      disordered: 0,
      seconds,
      ratePerS: load.idle / seconds,
      latencyMs: null,
      frozenLatencyMs: null,
      replayPerS: null,
      connectionBytes: bytes === null || bytesBefore === null ? null : (bytes - bytesBefore) / load.idle,
    }
  } finally {
    for (const { socket } of connections) socket.destroy()
  }
}

import { Duplex } from 'node:stream'
import type { MqttServer } from '../../src/protocol/mqtt/server.ts'
import type { Random } from './mutation.ts'

/** A client's end of a connection without a network. */
class InProcessSocket extends Duplex {
  readonly remoteAddress = 'fuzz'
  readonly remotePort: number
  readonly #heard: Buffer[] = []

  constructor(port: number) {
    super({ allowHalfOpen: true })
    this.remotePort = port
  }

  get heard(): Buffer {
    return Buffer.concat(this.#heard)
  }

  override _read(): void {
    // Chunks are pushed as the client says them.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#heard.push(Buffer.from(chunk))
    done()
  }
}

/** Says it piece by piece and goes, some with a broken connection; resolves to what was answered when that is over. */
export async function sayInProcess(
  server: MqttServer,
  { port, chunks, random }: { port: number; chunks: readonly Buffer[]; random: Random },
): Promise<{ readonly heard: Buffer; readonly isCutOff: boolean }> {
  const socket = new InProcessSocket(port)
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
  server.accept(socket)
  for (const chunk of chunks) {
    if (socket.writableEnded || socket.destroyed) break
    socket.push(chunk)
    if (random(4) === 0) await turn()
  }
  const isCutOff = random(8) === 0
  if (isCutOff) socket.destroy()
  else socket.push(null)
  await closed
  return { heard: socket.heard, isCutOff }
}

const turn = () => new Promise<void>(resolve => setImmediate(resolve))

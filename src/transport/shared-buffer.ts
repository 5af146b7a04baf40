import { Socket } from 'node:net'

/**
 * Every socket reads into this one buffer: what a read brought is dealt with before the next. A buffer for each read, as Node makes by
 * default, costs a third of a small message's way through the gateway, most of it in the collector.
 */
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024)
/** By length, what a short read brings: where devices send one message at a time, reads are alike. */
const shortReads: (Buffer | undefined)[] = new Array(1024)

function readChunk(bytes: number): Buffer {
  if (bytes >= shortReads.length) return readBuffer.subarray(0, bytes)
  let chunk = shortReads[bytes]
  if (chunk === undefined) {
    chunk = readBuffer.subarray(0, bytes)
    shortReads[bytes] = chunk
  }
  return chunk
}

/**
 * The accepted connection as a socket that reads into `readBuffer`. Node has that (`onread`) for connections one opens oneself; for accepted
 * ones the handle moves into a new socket by the option `handle`, which Node uses the same way and does not document. Without it
 * the accepted socket does: slower, and otherwise the same.
 */
export function withSharedBuffer(accepted: Socket): Socket {
  const handle: unknown = Reflect.get(accepted, '_handle')
  if (typeof handle !== 'object' || handle === null || !('useUserBuffer' in handle)) return accepted.resume()
  // What came behind a PROXY header.
  const unread: Buffer | null = accepted.readableLength > 0 ? accepted.read() : null
  Reflect.set(accepted, '_handle', null)
  accepted.destroy()
  const options = {
    handle,
    onread: {
      buffer: readBuffer,
      callback: (bytes: number) => {
        socket.emit('data', readChunk(bytes))
        return true
      },
    },
  }
  const socket: Socket = Reflect.construct(Socket, [options])
  if (unread !== null) socket.unshift(unread)
  return socket
}

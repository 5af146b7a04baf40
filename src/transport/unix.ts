import { lstat, unlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { BrokerError } from '../model/error.ts'
import { Arrivals } from './arrivals.ts'
import type { Accept, Listener, ListenerCounters, ListenerOptions, Peer } from './listener.ts'
import { withSharedBuffer } from './shared-buffer.ts'

export interface UnixOptions {
  /** Of the socket file. */
  readonly path: string
  /** Its permissions: who may write to it may connect. */
  readonly mode: number
}

/** A socket file, for processes of this machine. */
export class UnixListener implements Listener {
  readonly #name: string
  readonly #path: string
  readonly #mode: number
  readonly #arrivals: Arrivals
  readonly #peer: Peer

  constructor({ path, mode, ...options }: ListenerOptions & UnixOptions) {
    this.#name = options.name
    this.#path = path
    this.#mode = mode
    this.#peer = { listener: options.name, isLocal: true, certificateUser: null, isEncrypted: false }
    this.#arrivals = new Arrivals(options)
  }

  get counters(): ListenerCounters {
    return this.#arrivals.counters
  }

  async start(accept: Accept): Promise<void> {
    await this.#clearPath()
    // The file must not be there with other permissions for a moment; the call makes it before it returns.
    const umask = process.umask(0o777 & ~this.#mode)
    const bound = this.#arrivals.listen({ path: this.#path }, accepted => {
      const socket = Object.assign(withSharedBuffer(accepted), { peer: this.#peer })
      accept(socket)
      return socket
    })
    process.umask(umask)
    try {
      await bound
    } catch (error) {
      throw this.#failure(error)
    }
  }

  /** Takes the file away too. */
  stop(): Promise<void> {
    return this.#arrivals.stop()
  }

  reload(): void {
    // It has no files.
  }

  health(): readonly string[] {
    return []
  }

  address(): { readonly host: string; readonly port: number } {
    return this.#arrivals.address()
  }

  /** Takes away what a process that did not end in order has left there. Throws LISTENER_PORT_IN_USE if somebody listens, LISTENER_FAILED if it is something else. */
  async #clearPath(): Promise<void> {
    try {
      const found = await lstat(this.#path)
      if (!found.isSocket()) {
        throw new BrokerError(
          'LISTENER_FAILED',
          `${this.#path} is there and no socket; remove it or set listeners.${this.#name}.path to another path`,
          { facts: this.#facts },
        )
      }
      if (await this.#isServed()) {
        throw new BrokerError(
          'LISTENER_PORT_IN_USE',
          `${this.#path} is in use by another process; stop that one or set listeners.${this.#name}.path to another path`,
          { facts: this.#facts },
        )
      }
      await unlink(this.#path)
    } catch (error) {
      if (error instanceof BrokerError) throw error
      if (!isNotFound(error)) throw this.#failure(error)
    }
  }

  /** Whether a process listens on the socket that is there. */
  #isServed(): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const probe = connect(this.#path)
      probe.on('connect', () => {
        probe.destroy()
        resolve(true)
      })
      probe.on('error', error => {
        const code = 'code' in error ? error.code : undefined
        if (code === 'ECONNREFUSED') resolve(false)
        // More wait to be accepted than the kernel keeps.
        else if (code === 'EAGAIN') resolve(true)
        else reject(error)
      })
    })
  }

  get #facts(): { listener: string; path: string } {
    return { listener: this.#name, path: this.#path }
  }

  #failure(cause: unknown): BrokerError {
    const reason = cause instanceof Error ? cause.message : String(cause)
    return new BrokerError(
      'LISTENER_FAILED',
      `cannot listen on ${this.#path} (${reason}): set listeners.${this.#name}.path to one in a directory where the gateway may write`,
      { cause, facts: this.#facts },
    )
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

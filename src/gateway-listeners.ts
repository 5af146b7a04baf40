import type { Config, TlsConfig } from './config/schema.ts'
import type { Listener } from './transport/listener.ts'
import { TcpListener } from './transport/tcp.ts'
import type { TlsListener, TlsOptions } from './transport/tls.ts'

type Common = Pick<TlsOptions, 'log' | 'admits' | 'handshakes' | 'monotonicMs'>
type OnStop = (stop: () => Promise<void>) => void

/**
 * What devices connect to, by name, in the order it is to be opened, and those of it that have TLS. What the configuration does not ask for is not
 * loaded. Rejects with TLS_FILES_INVALID.
 */
export async function deviceListeners(
  { listeners: { mqtt, mqtts, ws, wss, unix }, limits }: Config,
  common: Common,
  onStop: OnStop,
): Promise<{ listeners: ReadonlyMap<string, Listener>; tlsListeners: readonly TlsListener[] }> {
  const listeners = new Map<string, Listener>([['mqtt', new TcpListener({ ...common, ...mqtt, name: 'mqtt' })]])
  const tlsListeners: TlsListener[] = []
  if (mqtts !== null) {
    const listener = await tlsListener({ ...common, ...mqtts, name: 'mqtts', alpn: 'mqtt' }, onStop)
    tlsListeners.push(listener)
    listeners.set('mqtts', listener)
  }
  if (ws !== null || wss !== null) {
    const { WebSocketListener } = await import('./transport/ws.ts')
    const { packetBytes, connectTimeoutMs: deadlineMs } = limits
    if (ws !== null) {
      const inner = new TcpListener({ ...common, ...ws, name: 'ws', reads: 'own' })
      listeners.set('ws', new WebSocketListener(inner, { ...ws, packetBytes, deadlineMs }))
    }
    if (wss !== null) {
      const inner = await tlsListener({ ...common, ...wss, name: 'wss', alpn: 'http/1.1' }, onStop)
      tlsListeners.push(inner)
      listeners.set('wss', new WebSocketListener(inner, { ...wss, packetBytes, deadlineMs }))
    }
  }
  if (unix !== null) {
    const { UnixListener } = await import('./transport/unix.ts')
    listeners.set('unix', new UnixListener({ ...common, ...unix, name: 'unix' }))
  }
  return { listeners, tlsListeners }
}

type UnreadTls = Omit<TlsOptions, 'readFiles' | keyof TlsConfig> & { readonly tls: TlsConfig }

/** A listener with TLS, whose files are watched until it stops. Rejects with TLS_FILES_INVALID. */
async function tlsListener({ tls, ...options }: UnreadTls, onStop: OnStop): Promise<TlsListener> {
  const [{ TlsListener }, { readTlsFiles }, { FileWatch }] = await Promise.all([
    import('./transport/tls.ts'),
    import('./config/tls-files.ts'),
    import('./config/file-watch.ts'),
  ])
  const files = [tls.cert, tls.key, tls.ca, tls.crl].filter(file => file !== null)
  const watch = new FileWatch(files, {
    onChange: async () => listener.reload(),
    onError: error =>
      options.log.error({ err: error, files }, 'changes of certificates are not noticed any more; restart the gateway'),
  })
  onStop(() => watch.stop())
  // Before they are read, so that no change is missed.
  await watch.start()
  const listener = new TlsListener({ ...options, ...tls, readFiles: () => readTlsFiles(tls) })
  return listener
}

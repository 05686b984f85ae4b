import { json } from '../json.js'
import type { ClientOptions } from '../options.js'
import type { TransportName } from '../types.js'

const DEFAULTS = {
  transports: ['websocket', 'sse', 'poll'] as readonly TransportName[],
  upgradeEveryMs: 60_000,
  codec: json,
  connectTimeoutMs: 10_000,
  requestTimeoutMs: 10_000,
  pingGraceMs: 10_000,
  autoConnect: true,
  echo: true,
  name: 'tidings-js/0.1.0',
}

/** The options of a client with what holds where nothing was said. */
export type Settings = Omit<ClientOptions, keyof typeof DEFAULTS> & Required<Pick<ClientOptions, keyof typeof DEFAULTS>>

export function settingsOf(options: ClientOptions): Settings {
  return { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options }
}

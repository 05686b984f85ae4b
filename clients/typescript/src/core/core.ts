import type { ClientEvents } from '../types.js'
import type { Http } from './http.js'
import type { Saver } from './saver.js'
import type { Settings } from './settings.js'
import type { Tokens } from './tokens.js'

/** What the parts of a client have in common. */
export interface Core {
  readonly _settings: Settings
  readonly _tokens: Tokens
  readonly _http: Http
  readonly _saver: Saver
  /** Tells the client's listeners. */
  _emit<K extends keyof ClientEvents>(name: K, ...args: ClientEvents[K]): void
  /** What failed that no caller waits for, or what a listener threw. */
  _failed(cause: unknown): void
}

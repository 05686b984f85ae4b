import { TidingsError } from '../errors.js'
import type { ClientOptions, TokenReason } from '../options.js'
import { abortable, deadline } from './wait.js'

/**
 * The token in use. It is asked for once and kept; several who want it at a time share one call of `getToken`.
 */
export class Tokens {
  /** Whether another one can be had where this one is refused. */
  readonly renewable: boolean
  readonly #get: ClientOptions['getToken']
  readonly #timeoutMs: number
  readonly #stop = new AbortController()
  #token: string | undefined
  #reason: TokenReason = 'initial'
  #asking: Promise<string> | undefined

  /** `timeoutMs` is how long `getToken` may take. */
  constructor({ token, getToken }: Pick<ClientOptions, 'token' | 'getToken'>, timeoutMs: number) {
    this.#timeoutMs = timeoutMs
    this.#token = token
    this.#get = getToken
    this.renewable = getToken !== undefined
  }

  /** A token, or `undefined` where the client has none. */
  async current(): Promise<string | undefined> {
    if (this.#token !== undefined || !this.#get) return this.#token
    return this.#ask(this.#get, this.#reason)
  }

  /** The broker has refused this one. */
  rejected(token: string | undefined): void {
    if (!this.#get || token !== this.#token) return
    this.#token = undefined
    this.#reason = 'rejected'
  }

  /** The broker has closed a connection for the token that was shown on it. */
  ended(): void {
    this.rejected(this.#token)
  }

  /** The one in use ends soon: the next one, or `undefined` where there is none to be had. */
  async renewed(): Promise<string | undefined> {
    return this.#get && this.#ask(this.#get, 'expiring')
  }

  close(): void {
    this.#stop.abort()
  }

  #ask(get: NonNullable<ClientOptions['getToken']>, reason: TokenReason): Promise<string> {
    this.#asking ??= this.#within(get, reason).finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  async #within(get: NonNullable<ClientOptions['getToken']>, reason: TokenReason): Promise<string> {
    const limit = deadline(this.#timeoutMs, this.#stop.signal)
    const { signal } = limit
    try {
      // One that does not listen to its signal is not waited for either.
      this.#token = await abortable<string>(signal, (resolve, reject) => {
        Promise.resolve()
          .then(() => get({ reason, signal }))
          .then(resolve, reject)
        return undefined
      })
      return this.#token
    } catch (cause) {
      if (signal.reason instanceof TidingsError) throw signal.reason
      throw cause instanceof TidingsError ? cause : new TidingsError('unauthenticated', 'getToken failed', { cause })
    } finally {
      limit.done()
    }
  }
}

// Calls of the broker's HTTP API.
//
// - Each has its time. A refusal is a `TidingsError` with what the broker said; no answer is `disconnected`.
// - A token that is refused is asked for anew, and the call made once more.

import { TidingsError } from '../errors.js'
import { isWords } from './check.js'
import type { Tokens } from './tokens.js'
import { lost, refusal } from './verdict.js'
import { aborted, type Deadline, deadline } from './wait.js'

/** What a call may have beside method and path. */
export interface CallInit {
  body?: unknown
  /** Ends it, also while the body is read. */
  signal?: AbortSignal | undefined
  timeoutMs?: number | undefined
}

export class Http {
  readonly #base: string
  readonly #fetch: typeof fetch
  readonly #tokens: Tokens
  readonly #timeoutMs: number
  readonly #stop = new AbortController()

  constructor(base: string, fetcher: typeof fetch, tokens: Tokens, timeoutMs: number) {
    this.#base = base
    this.#fetch = fetcher
    this.#tokens = tokens
    this.#timeoutMs = timeoutMs
  }

  /** The JSON of an answer; `undefined` where it has no body. */
  async json<T>(
    method: string,
    path: string,
    { body, signal, timeoutMs = this.#timeoutMs }: CallInit = {},
  ): Promise<T> {
    const limit = deadline(timeoutMs, signal, this.#stop.signal)
    try {
      const response = await this.#send(method, path, 'application/json', limit.signal, body)
      const text = await response.text()
      return (text ? JSON.parse(text) : undefined) as T
    } catch (error) {
      throw why(error, limit.signal, signal)
    } finally {
      limit.done()
    }
  }

  /** A stream of events. */
  async stream(path: string, limit: Deadline): Promise<Response> {
    try {
      return await this.#send('GET', path, 'text/event-stream', limit.signal)
    } catch (error) {
      throw why(error, limit.signal)
    }
  }

  /** Ends all calls. */
  close(): void {
    this.#stop.abort(new TidingsError('closed', 'the client is closed'))
  }

  async #send(
    method: string,
    path: string,
    accept: string,
    signal: AbortSignal,
    body?: unknown,
    again = true,
  ): Promise<Response> {
    const token = await this.#tokens.current()
    const headers: Record<string, string> = { accept }
    if (token !== undefined) headers.authorization = `Bearer ${token}`
    const request: RequestInit = { method, headers, signal, cache: 'no-store' }
    if (body !== undefined) {
      headers['content-type'] = 'application/json'
      request.body = JSON.stringify(body)
    }
    // A method of nothing: `fetch` of a browser wants no other `this`.
    const fetcher = this.#fetch
    const response = await fetcher(this.#base + path, request)
    if (response.ok) return response
    const error = await refused(response)
    if (error.code !== 'unauthenticated') throw error
    this.#tokens.rejected(token)
    if (!again || !this.#tokens.renewable) throw error
    return this.#send(method, path, accept, signal, body, false)
  }
}

async function refused(response: Response): Promise<TidingsError> {
  const { status, headers } = response
  const retryable = status >= 500 || status === 429
  const seconds = Number(headers.get('retry-after'))
  // Where somebody in between has answered it is all there is to know.
  const others = status === 413 ? 'too_large' : 'protocol'
  const code = status === 401 ? 'unauthenticated' : retryable ? 'unavailable' : others
  const known = {
    code,
    retryable,
    retry_after_ms: seconds ? seconds * 1_000 : undefined,
    message: `HTTP status ${status}`,
  }
  const problem: unknown = await response.json().catch(() => {})
  return refusal(isWords(problem) && problem.code ? { ...known, ...problem, message: problem.detail } : known)
}

function why(error: unknown, limit: AbortSignal, caller?: AbortSignal): TidingsError {
  if (error instanceof TidingsError) return error
  if (caller?.aborted) return aborted(caller)
  return limit.reason instanceof TidingsError ? limit.reason : lost('the broker cannot be reached', error)
}

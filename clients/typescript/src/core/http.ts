// Calls of the broker's HTTP API.
//
// - Each has its time. A refusal is a `TidingsError` with what the broker said; no answer is `disconnected`.
// - A token that is refused is asked for anew, and the call made once more.

import type { TidingsError } from '../errors.js'
import { isWords } from './check.js'
import type { Settings } from './settings.js'
import type { Tokens } from './tokens.js'
import { errorOf, refusal } from './verdict.js'
import { unless, within } from './wait.js'

/** What a call may have beside method and path. */
export interface CallInit {
  body?: unknown
  /** Ends it, also while the body is read. */
  signal?: AbortSignal | undefined
  timeoutMs?: number | undefined
}

export interface Http {
  /** The JSON of an answer; `undefined` where it has no body. */
  _json<T>(method: string, path: string, init?: CallInit): Promise<T>
  /** A stream of events, piece by piece; `begun` has its head before. It is given back however its reader leaves it. */
  _stream(path: string, signal: AbortSignal, begun?: (headers: Headers) => void): AsyncGenerator<Uint8Array>
}

/** `end` ends all calls. */
export function createHttp(base: string, settings: Settings, tokens: Tokens, end: AbortSignal): Http {
  const { fetch: fetcher = fetch, requestTimeoutMs } = settings

  const send = async (
    path: string,
    accept: string,
    request: RequestInit,
    signal: AbortSignal,
    again = true,
  ): Promise<Response> => {
    const token = await unless(signal, tokens._get())
    const headers: Record<string, string> = { accept }
    if (token !== undefined) headers.authorization = `Bearer ${token}`
    if (request.body) headers['content-type'] = 'application/json'
    const response = await fetcher(base + path, { ...request, signal, headers, cache: 'no-store' })
    if (response.ok) return response
    const error = await refused(response)
    if (error.code !== 'unauthenticated') throw error
    tokens._reject(token)
    if (!again || !tokens._renewable) throw error
    return send(path, accept, request, signal, false)
  }

  return {
    async _json(method, path, { body, signal: caller, timeoutMs = requestTimeoutMs } = {}) {
      const sent = body ? JSON.stringify(body) : null
      const call = async (signal: AbortSignal): Promise<never> => {
        const text = await (await send(path, 'application/json', { method, body: sent }, signal)).text()
        return (text ? JSON.parse(text) : undefined) as never
      }
      return within(timeoutMs, call, caller, end).catch((cause) => {
        throw errorOf(cause)
      })
    },
    async *_stream(path, signal, begun) {
      const { headers, body } = await send(path, 'text/event-stream', {}, signal)
      const reader = body?.getReader()
      try {
        begun?.(headers)
        for (;;) {
          const { value } = (await reader?.read()) ?? {}
          if (!value) return
          yield value
        }
      } finally {
        void reader?.cancel().catch(() => {})
      }
    },
  }
}

async function refused(response: Response): Promise<TidingsError> {
  const { status, headers } = response
  const after = Number(headers.get('retry-after')) * 1_000 || undefined
  const problem: unknown = await response.json().catch(() => {})
  if (isWords(problem) && problem.code) return refusal({ retry_after_ms: after, ...problem, message: problem.detail })
  // Somebody in between has answered: nothing is known of the broker, which may well be there the next time.
  const known: Record<number, string> = { 401: 'unauthenticated', 413: 'too_large', 429: 'unavailable' }
  const code = known[status] ?? (status < 500 ? 'protocol' : 'unavailable')
  return refusal({
    code,
    message: `status ${status}`,
    retryable: code === 'protocol' || undefined,
    retry_after_ms: after,
  })
}

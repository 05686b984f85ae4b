import { toError } from '../errors.js'
import type { TokenReason } from '../options.js'
import type { Settings } from './settings.js'
import { unless, within } from './wait.js'

/** The token in use. It is asked for once and kept; several who want it at a time share one call of `getToken`. */
export interface Tokens {
  /** Whether another one can be had where this one is refused. */
  readonly _renewable: boolean
  /** A token, or `undefined` where the client has none. */
  _get(): Promise<string | undefined>
  /** The broker has refused this one. */
  _reject(token: string | undefined): void
  /** The one in use ends soon: the next one, or `undefined` where there is none to be had. */
  _refresh(): Promise<string | undefined>
}

/** `end` ends what is asked. */
export function createTokens({ token: held, getToken, requestTimeoutMs }: Settings, end: AbortSignal): Tokens {
  let reason: TokenReason = 'initial'
  let asking: Promise<string | undefined> | undefined

  const get = async (why: TokenReason): Promise<string | undefined> => {
    try {
      held = await within(
        requestTimeoutMs,
        // One that does not listen to its signal is not waited for either.
        (signal) => unless(signal, getToken?.({ reason: why, signal })),
        end,
      )
      return held
    } catch (cause) {
      throw toError(cause, 'unauthenticated', 'getToken failed')
    } finally {
      asking = undefined
    }
  }
  const ask = (why: TokenReason): Promise<string | undefined> => (asking ??= get(why))

  return {
    _renewable: !!getToken,
    _get: async () => held ?? (getToken && ask(reason)),
    _reject(token) {
      if (!getToken || token !== held) return
      held = undefined
      reason = 'rejected'
    },
    _refresh: async () => getToken && ask('expiring'),
  }
}

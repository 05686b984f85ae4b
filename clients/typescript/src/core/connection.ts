// Keeps a link up: which transport, when to try, what an end means.
//
// ```text
//                connect()              opened
// disconnected ───────────▶ connecting ────────▶ connected
//      ▲                        │  ▲                 │ lost
//      │ disconnect(), refused  │  │ wait, try       ▼
//      └────────────────────────┴──┴───────── reconnecting
// ```
// - One try at a time. A wait is cut short by `connect()`, by the network coming back and by a page that is looked at.
// - Two failures in a row lead one transport down. Only those count behind which the broker can be reached: where it
//   cannot, the transport is not to blame, nor for what failed before the broker came back, nor where a token is refused.
//   From the lowest it goes on at the top.
// - While a lower transport is in use the better ones are tried beside it; the first that opens takes its place.

import { failure, type TidingsError } from '../errors.js'
import type { Session, State, Status, TransportName } from '../types.js'
import type { Core } from './core.js'
import { capabilities } from './http-link.js'
import type { Link, LinkHooks } from './link.js'
import { errorOf, isFinal } from './verdict.js'
import { aborted, alarm, sleep, within } from './wait.js'

/** A connection that did not last so long counts as a failure of its transport. */
const GOOD_AFTER_MS = 5_000
/** So many failures in a row lead down. */
const FAILURES_MAX = 2

export interface Connection {
  _status(): Status
  /** What the broker said last. */
  _session(): Session | undefined
  _link(): Link | undefined
  /** Connects, or tries at once where a wait is on. */
  _open(): void
  _close(error?: TidingsError): void
  /** The page is looked at, or the network is back: what waits is tried, what is there shows that it is. */
  _wake(): void
  /** Changes what is shown, and tells it where it is another. */
  _set(change: Partial<Status>): void
}

/**
 * `dial` opens a link, `attach` is told that there is one, another one, or none.
 */
export function createConnection(
  { _settings: settings, _tokens: tokens, _http: http, _emit: emit, _failed: failed }: Core,
  transports: readonly TransportName[],
  dial: (transport: TransportName, hooks: LinkHooks, signal: AbortSignal) => Promise<Link>,
  attach: (link: Link | undefined) => void,
): Connection {
  const { reconnect = {}, connectTimeoutMs, upgradeEveryMs, logger } = settings
  let status = {
    state: 'disconnected',
    since: Date.now(),
    attempt: 0,
    outboxEvents: 0,
  } as Status
  let session: Session | undefined
  let link: Link | undefined
  let linkedMs = 0
  /** Ends the tries; there is one while a connection is wanted. */
  let wanted: AbortController | undefined
  /** Cuts the wait short. */
  let hurry: AbortController | undefined
  let was = false
  /** Tries that have failed in a row, and since when; a connection that was lost is the first. */
  let attempt = 0
  let firstMs = 0
  /** How often there was a wait: connections that do not last count too. */
  let waits = 0
  /** The transport in use or to try next, and how often it has failed in a row. */
  let step = 0
  let failures = 0

  const set = (change: Partial<Status>): void => {
    const before = status
    const after = { ...before, ...change }
    const moved = after.state !== before.state || after.transport !== before.transport
    if ((Object.keys(change) as (keyof Status)[]).every((name) => after[name] === before[name])) return
    status = moved ? { ...after, since: Date.now() } : after
    emit('status', status)
    if (!moved) return
    logger?.debug(`tidings is ${status.state}`, status)
    emit('state', status)
  }

  /** What is not said of the new state does not hold in it. */
  const become = (state: State, more: Partial<Status>): void =>
    set({ state, transport: undefined, nextRetryAt: undefined, ...more })
  const seek = (more: Partial<Status> = {}): void => become(was ? 'reconnecting' : 'connecting', more)

  /** What was in use is not any more. */
  const unlink = (): Link | undefined => {
    const before = link
    session = before?._session ?? session
    link = undefined
    upgrade._clear()
    attach(undefined)
    return before
  }

  const disconnect = (error?: TidingsError): void => {
    wanted?.abort()
    wanted = undefined
    hurry?.abort()
    unlink()?._close()
    was = false
    become('disconnected', { error })
  }

  const strive = async ({ signal }: AbortController, before?: TidingsError): Promise<void> => {
    let error = before
    for (;;) {
      if (error) {
        const delayMs = delayOf(error)
        if (delayMs === null) {
          disconnect(error)
          return failed(error)
        }
        seek({ attempt, nextRetryAt: Date.now() + delayMs, error })
        hurry = new AbortController()
        await sleep(delayMs, hurry.signal)
        hurry = undefined
        if (signal.aborted) return
      }
      seek()
      try {
        return take(await open(transports[step] as TransportName, signal))
      } catch (cause) {
        error = errorOf(cause)
        if (error.retryable && !signal.aborted) await stepDown(0, signal)
        if (signal.aborted) return
      }
    }
  }

  const open = async (transport: TransportName, signal: AbortSignal): Promise<Link> => {
    let mine: Link | undefined
    // A hook is heard only of the link in use: one that is lost before it is taken fails the try.
    const used = (): boolean => mine !== undefined && link === mine
    const hooks: LinkHooks = {
      _lost: (error) => used() && lost(error),
      _latency: (latencyMs) => set({ latencyMs: Math.round(latencyMs) }),
      _goodbye: (code, reconnectAfterMs) => used() && emit('goodbye', { code, reconnectAfterMs }),
      _tokenExpiring: () => void tokens._refresh().then((token) => token && used() && mine?._refresh(token), failed),
    }
    mine = await within(connectTimeoutMs, (limit) => dial(transport, hooks, limit), signal)
    if (signal.aborted) {
      mine._close()
      throw aborted(signal)
    }
    return mine
  }

  const take = (next: Link): void => {
    const before = link
    const { _transport: transport } = next
    upgrade._clear()
    link = next
    linkedMs = Date.now()
    was = true
    attempt = 0
    const at = transports.indexOf(transport)
    if (at !== step) failures = 0
    step = at
    become('connected', { transport, attempt, error: undefined })
    // What hangs on the link before lets go of it while it is open still.
    attach(next)
    before?._close()
    watchUpgrade()
  }

  const lost = async (error: TidingsError): Promise<void> => {
    const mine = wanted
    const lastedMs = Date.now() - linkedMs
    unlink()
    if (lastedMs >= (reconnect.resetAfterMs ?? 60_000)) waits = 0
    if (!mine) return
    if (error.retryable && error.retryAfterMs == null) await stepDown(lastedMs, mine.signal)
    if (!mine.signal.aborted) await strive(mine, error)
  }

  /** A try failed, or a connection was lost after so long. */
  const stepDown = async (lastedMs: number, signal: AbortSignal): Promise<void> => {
    if (lastedMs >= GOOD_AFTER_MS) failures = 0
    else if (transports.length > 1) {
      seek()
      await capabilities(http, connectTimeoutMs, signal).then(
        () => {
          if (++failures < FAILURES_MAX) return
          failures = 0
          step = (step + 1) % transports.length
        },
        () => {},
      )
    }
  }

  /**
   * How long to wait; `null` when it is over. The n-th wait is at most `minMs · factor^n`, and at most `maxMs`; with full jitter a random part of that. What the
   * broker asks for is followed up to 300,000.
   */
  const delayOf = (error: TidingsError): number | null => {
    const { minMs = 500, maxMs = 30_000, factor = 2, jitter, maxAttempts = Infinity, nextDelay } = reconnect
    const nowMs = Date.now()
    if (!attempt) firstMs = nowMs
    // Of those that are not retryable only a token that another one can replace is worth a try.
    if (isFinal(error) || (!error.retryable && !tokens._renewable) || ++attempt > maxAttempts) return null
    const boundMs = Math.min(maxMs, minMs * factor ** Math.min(waits++, 64))
    const ownMs = jitter === 'none' ? boundMs : Math.random() * boundMs
    const delayMs = error.retryAfterMs == null ? ownMs : Math.min(error.retryAfterMs, 300_000)
    try {
      return nextDelay ? nextDelay({ attempt, elapsedMs: nowMs - firstMs, error, delayMs }) : delayMs
    } catch (cause) {
      failed(failure('internal', 'nextDelay threw', cause))
      return delayMs
    }
  }

  const watchUpgrade = (): void => {
    if (step > 0) upgrade._set(upgradeEveryMs)
  }

  const upgrade = alarm(async () => {
    const held = link
    const signal = wanted?.signal
    if (!signal) return
    for (const transport of transports.slice(0, step)) {
      try {
        const better = await open(transport, signal)
        // What was in use may be gone meanwhile, and another try be on.
        return link === held && held ? take(better) : better._close()
      } catch {
        if (link !== held) return
      }
    }
    watchUpgrade()
  })

  return {
    _status: () => status,
    _session: () => link?._session ?? session,
    _link: () => link,
    _open() {
      if (wanted) return hurry?.abort()
      attempt = waits = 0
      wanted = new AbortController()
      void strive(wanted)
    },
    _close: disconnect,
    _wake() {
      if (link) link._wake()
      else hurry?.abort()
    },
    _set: set,
  }
}

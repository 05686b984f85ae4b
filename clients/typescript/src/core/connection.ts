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
//   cannot, the transport is not to blame, nor for what failed before the broker came back. From the lowest it goes on
//   at the top.
// - While a lower transport is in use the better ones are tried beside it; the first that opens takes its place.

import { failure, type TidingsError } from '../errors.js'
import type { Session, Status, TransportName } from '../types.js'
import { delayOf } from './backoff.js'
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
  transports: readonly [TransportName, ...TransportName[]],
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
  /** Tries that have failed in a row, and since when. */
  let attempt = 0
  let firstMs = 0
  /** The transport in use or to try next, and how often it has failed in a row. */
  let step = 0
  let failures = 0

  const set = (change: Partial<Status>): void => {
    const before = status
    const after = { ...before, ...change }
    const moved = after.state !== before.state || after.transport !== before.transport
    if (!moved && (Object.keys(change) as (keyof Status)[]).every((name) => after[name] === before[name])) return
    status = moved ? { ...after, since: Date.now() } : after
    emit('status', status)
    if (!moved) return
    logger?.debug(`tidings is ${status.state}`, status)
    emit('state', status)
  }

  const seek = (more: Partial<Status> = {}): void =>
    set({ state: was ? 'reconnecting' : 'connecting', transport: undefined, nextRetryAt: undefined, ...more })

  const disconnect = (error?: TidingsError): void => {
    wanted?.abort()
    wanted = undefined
    hurry?.abort()
    upgrade._clear()
    const before = link
    link = undefined
    if (before) {
      session = before._session
      attach(undefined)
      before._close()
    }
    was = false
    set({ state: 'disconnected', transport: undefined, nextRetryAt: undefined, error })
  }

  const strive = async ({ signal }: AbortController, before?: TidingsError): Promise<void> => {
    let error = before
    for (;;) {
      if (error) {
        const delayMs = judge(error)
        if (delayMs === null) return
        seek({ attempt, nextRetryAt: Date.now() + delayMs, error })
        hurry = new AbortController()
        await sleep(delayMs, hurry.signal)
        hurry = undefined
        if (signal.aborted) return
      }
      seek()
      try {
        return take(await open(transports[step] ?? transports[0], signal))
      } catch (cause) {
        error = errorOf(cause)
        if (!signal.aborted && !isFinal(error)) await stepDown(0, signal)
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
    session = next._session
    was = true
    const at = transports.indexOf(transport)
    if (at !== step) failures = 0
    step = at
    set({ state: 'connected', transport, attempt: 0, nextRetryAt: undefined, error: undefined })
    // What hangs on the link before lets go of it while it is open still.
    attach(next)
    before?._close()
    watchUpgrade()
  }

  const lost = async (error: TidingsError): Promise<void> => {
    const mine = wanted
    const lastedMs = Date.now() - linkedMs
    link = undefined
    upgrade._clear()
    attach(undefined)
    if (lastedMs >= (reconnect.resetAfterMs ?? 60_000)) attempt = 0
    if (!mine) return
    if (!isFinal(error) && error.retryAfterMs == null) await stepDown(lastedMs, mine.signal)
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

  /** How long to wait; `null` when it is over, which is said then. */
  const judge = (error: TidingsError): number | null => {
    const nowMs = Date.now()
    if (!attempt) firstMs = nowMs
    // Of those that are not retryable only a token that another one can replace is worth a try.
    const over = isFinal(error) || (!error.retryable && !tokens._renewable)
    const delayMs = over
      ? null
      : delayOf(reconnect, ++attempt, nowMs - firstMs, error, (cause) =>
          failed(failure('internal', 'nextDelay threw', cause)),
        )
    if (delayMs === null) {
      disconnect(error)
      failed(error)
    }
    return delayMs
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
      attempt = 0
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

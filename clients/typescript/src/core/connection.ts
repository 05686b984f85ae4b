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
// - While a lower transport is in use the better ones are tried beside it; the first that opens takes its place.

import { TidingsError } from '../errors.js'
import type { ReconnectOptions } from '../options.js'
import type { Session, Status, TransportName } from '../types.js'
import { Backoff } from './backoff.js'
import { Ladder } from './ladder.js'
import type { Link, LinkHooks } from './link.js'
import { type Verdict, verdictOf } from './verdict.js'
import { deadline, sleep } from './wait.js'

/** What a connection needs of its client. */
export interface ConnectionHooks {
  /** Opens a link. Rejected with a `Verdict` or an error. */
  dial(transport: TransportName, hooks: LinkHooks, signal: AbortSignal): Promise<Link>
  /** Whether the broker answers at all: then it is the transport that fails. */
  reachable(signal: AbortSignal): Promise<boolean>
  /** There is a link, another one, or none. */
  attach(link: Link | undefined): void
  /** Another token is needed; false where there is none to be had. */
  rejected(): boolean
  tokenExpiring(link: Link): void
  status(status: Status, stateChanged: boolean): void
  goodbye(code: string, reconnectAfterMs: number): void
  error(error: TidingsError): void
}

export interface ConnectionOptions {
  readonly transports: readonly TransportName[]
  readonly reconnect?: ReconnectOptions
  readonly connectTimeoutMs: number
  readonly upgradeEveryMs: number
}

export class Connection {
  status: Status = {
    state: 'disconnected',
    transport: undefined,
    since: Date.now(),
    attempt: 0,
    nextRetryAt: undefined,
    latencyMs: undefined,
    outboxEvents: 0,
    error: undefined,
  }
  session: Session | undefined

  readonly #options: ConnectionOptions
  readonly #hooks: ConnectionHooks
  readonly #backoff: Backoff
  readonly #ladder: Ladder
  #link: Link | undefined
  #linkedMs = 0
  /** Ends the tries; there is one while a connection is wanted. */
  #wanted: AbortController | undefined
  /** Cuts the wait short. */
  #hurry: AbortController | undefined
  #upgrade: ReturnType<typeof setTimeout> | undefined
  #was = false

  constructor(options: ConnectionOptions, hooks: ConnectionHooks) {
    this.#options = options
    this.#hooks = hooks
    this.#backoff = new Backoff(options.reconnect, Math.random, (cause) =>
      hooks.error(new TidingsError('internal', 'nextDelay threw', { cause })),
    )
    this.#ladder = new Ladder(options.transports)
  }

  get link(): Link | undefined {
    return this.#link
  }

  /** Connects, or tries at once where a wait is on. */
  connect(): void {
    if (this.#wanted) return this.#hurry?.abort()
    this.#backoff.reset()
    this.#wanted = new AbortController()
    void this.#try(this.#wanted, undefined)
  }

  disconnect(error?: TidingsError): void {
    this.#wanted?.abort()
    this.#wanted = undefined
    this.#hurry?.abort()
    clearTimeout(this.#upgrade)
    const link = this.#link
    this.#link = undefined
    if (link) {
      this.session = link.session
      this.#hooks.attach(undefined)
      link.close()
    }
    this.#was = false
    this.set({ state: 'disconnected', transport: undefined, nextRetryAt: undefined, error })
  }

  /** The page is looked at, or the network is back: what waits is tried, what is there shows that it is. */
  wake(): void {
    if (this.#link) this.#link.check()
    else this.#hurry?.abort()
  }

  /** Changes what is shown, and tells it where it is another. */
  set(change: Partial<Status>): void {
    const before = this.status
    const moved = (['state', 'transport'] as const).some((name) => name in change && change[name] !== before[name])
    if (!moved && (Object.keys(change) as (keyof Status)[]).every((name) => change[name] === before[name])) return
    this.status = { ...before, ...change, since: moved ? Date.now() : before.since }
    this.#hooks.status(this.status, moved)
  }

  async #try(wanted: AbortController, before: Verdict | undefined): Promise<void> {
    let verdict = before
    for (;;) {
      if (verdict) {
        const delayMs = this.#judge(verdict)
        if (delayMs === undefined) return
        const { error } = verdict
        this.set({
          state: this.#was ? 'reconnecting' : 'connecting',
          transport: undefined,
          attempt: this.#backoff.attempt,
          nextRetryAt: Date.now() + delayMs,
          error,
        })
        this.#hurry = new AbortController()
        await sleep(delayMs, this.#hurry.signal)
        this.#hurry = undefined
        if (wanted.signal.aborted) return
      }
      this.set({ state: this.#was ? 'reconnecting' : 'connecting', transport: undefined, nextRetryAt: undefined })
      try {
        this.#take(await this.#dial(this.#ladder.current, wanted))
        return
      } catch (error) {
        if (wanted.signal.aborted) return
        verdict = asVerdict(error)
        if (!verdict.stop) await this.#stepDown(0, wanted)
        if (wanted.signal.aborted) return
      }
    }
  }

  async #dial(transport: TransportName, wanted: AbortController): Promise<Link> {
    const limit = deadline(this.#options.connectTimeoutMs, wanted.signal)
    let link: Link | undefined
    // A hook is heard only of the link in use: one that is lost before it is taken fails the try.
    const mine = (): boolean => link !== undefined && this.#link === link
    const hooks: LinkHooks = {
      lost: (verdict) => mine() && this.#lost(verdict, wanted),
      latency: (latencyMs) => this.set({ latencyMs: Math.round(latencyMs) }),
      goodbye: (code, reconnectAfterMs) => mine() && this.#hooks.goodbye(code, reconnectAfterMs),
      tokenExpiring: () => link && this.#hooks.tokenExpiring(link),
      error: (error) => this.#hooks.error(error),
    }
    try {
      link = await this.#hooks.dial(transport, hooks, limit.signal)
      if (wanted.signal.aborted) {
        link.close()
        throw new TidingsError('aborted', 'no connection is wanted any more')
      }
      return link
    } finally {
      limit.done()
    }
  }

  #take(link: Link): void {
    const before = this.#link
    clearTimeout(this.#upgrade)
    this.#link = link
    this.#linkedMs = Date.now()
    this.session = link.session
    this.#was = true
    this.#ladder.use(link.transport)
    this.set({ state: 'connected', transport: link.transport, attempt: 0, nextRetryAt: undefined, error: undefined })
    // What hangs on the link before lets go of it while it is open still.
    this.#hooks.attach(link)
    before?.close()
    this.#watchUpgrade()
  }

  #lost(verdict: Verdict, wanted: AbortController): void {
    const lastedMs = Date.now() - this.#linkedMs
    this.#link = undefined
    clearTimeout(this.#upgrade)
    this.#hooks.attach(undefined)
    this.#backoff.lasted(lastedMs)
    const transport = verdict.stop || verdict.afterMs !== undefined ? undefined : lastedMs
    void (async () => {
      if (transport !== undefined) await this.#stepDown(transport, wanted)
      if (!wanted.signal.aborted) await this.#try(wanted, verdict)
    })()
  }

  async #stepDown(lastedMs: number, wanted: AbortController): Promise<void> {
    if (!this.#ladder.failed(lastedMs)) return
    this.set({ state: this.#was ? 'reconnecting' : 'connecting', transport: undefined })
    if (await this.#hooks.reachable(wanted.signal)) this.#ladder.stepDown()
  }

  /** How long to wait; `undefined` when it is over, which is said then. */
  #judge(verdict: Verdict): number | undefined {
    const { error, afterMs, rejected } = verdict
    const stop = verdict.stop || (rejected && !this.#hooks.rejected())
    const delayMs = stop ? null : this.#backoff.next(error, Date.now(), afterMs)
    if (delayMs !== null) return delayMs
    this.disconnect(error)
    this.#hooks.error(error)
    return undefined
  }

  #watchUpgrade(): void {
    const { better } = this.#ladder
    const wanted = this.#wanted
    if (better.length === 0 || !wanted) return
    this.#upgrade = setTimeout(async () => {
      const held = this.#link
      for (const transport of better) {
        try {
          const link = await this.#dial(transport, wanted)
          // What was in use may be gone meanwhile, and another try be on.
          if (this.#link === held && held) return this.#take(link)
          link.close()
          return
        } catch {
          if (this.#link !== held) return
        }
      }
      this.#watchUpgrade()
    }, this.#options.upgradeEveryMs)
  }
}

function asVerdict(error: unknown): Verdict {
  if (typeof error === 'object' && error !== null && 'error' in error && error.error instanceof TidingsError)
    return error as Verdict
  return verdictOf(error)
}

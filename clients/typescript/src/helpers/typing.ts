// Who is typing: events that end by themselves.

import type { AnySchema, Client } from '../types.js'
import { anyClient, fields, finite, given, text, trim } from './data.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

/** Somebody who is typing. */
export interface Typist {
  /** Names them. */
  readonly key: string
  /** What they are called, where they said so. */
  readonly name: string | undefined
  /** Since when, in milliseconds since 1970 by the broker's clock. */
  readonly since: number
}

/** Options of `typing`. */
export interface TypingOptions extends WatchOptions {
  /** Names us. Default the subject, or the session where nobody has a name. */
  key?: string
  /** What we are called. */
  name?: string
  /** How long a word of it holds. Default 3,000. */
  ttlMs?: number
  /** The most that are kept. Default 100. */
  max?: number
}

/** Who is typing on a topic. */
export interface Typing extends Watched<readonly Typist[]> {
  /** We are: call it with every key that is pressed. Published every two thirds of `ttlMs` at most. */
  typing(): void
  /** We are not any more. It is said by itself when `typing` has not been called for `ttlMs`. */
  stopped(): void
}

/** Follows who else is typing on a topic: events of type `typing` with `ttlMs`, by who as key. */
export function typing<S = AnySchema>(client: Client<S>, topic: string, options: TypingOptions = {}): Typing {
  const any = anyClient(client)
  const life = new Lifetime(options.signal)
  const ttl = options.ttlMs ?? 3_000
  const found = new Map<string, Typist & { until: number }>()
  const store = new Store<readonly Typist[]>(
    () => [...found.values()].map(({ until: _, ...typist }) => typist),
    options.notifyMs,
  )
  let timer: ReturnType<typeof setTimeout> | undefined
  let saidAt = -Infinity
  let active = false

  const me = (): string => {
    const { subject, id } = any.session ?? {}
    return options.key ?? (subject !== undefined && subject !== 'anonymous' ? subject : (id ?? 'anonymous'))
  }
  const sweep = () => {
    clearTimeout(timer)
    const now = performance.now()
    let next = Infinity
    for (const [key, { until }] of found) {
      if (until <= now) {
        found.delete(key)
        store.changed()
      } else next = Math.min(next, until)
    }
    timer = next < Infinity && !life.closed ? setTimeout(sweep, next - now) : undefined
  }
  const sub = any.subscribe(topic, { types: ['typing'] }, (event) => {
    const { key } = event
    if (key === undefined || event.own || key === me()) return
    const { typing: is, name, ttl_ms } = fields(event.data)
    if (is === false) {
      if (found.delete(key)) store.changed()
    } else {
      // From when it came here: their clock and ours need not agree.
      const until = performance.now() + Math.min(60_000, finite(ttl_ms) ?? ttl)
      const before = found.get(key)
      found.set(key, { key, name: text(name), since: before?.since ?? Date.parse(event.time), until })
      trim(found, options.max ?? 100)
      if (before === undefined || before.name !== text(name)) store.changed()
    }
    sweep()
  })
  let idle: ReturnType<typeof setTimeout> | undefined
  const say = (is: boolean) => {
    // Nobody wants to know afterwards that it could not be said.
    const data = given({ typing: is, name: options.name, ttl_ms: ttl })
    any.publish(topic, data, { type: 'typing', key: me(), ttlMs: ttl, priority: 'low' }).catch(() => undefined)
  }
  const stopped = () => {
    clearTimeout(idle)
    if (!active) return
    active = false
    saidAt = -Infinity
    if (any.state === 'connected') say(false)
  }
  life.add(() => sub.unsubscribe())
  life.add(() => {
    stopped()
    clearTimeout(timer)
    store.flush()
  })
  return {
    snapshot: store.snapshot,
    subscribe: store.subscribe,
    close: life.close,
    typing() {
      // Offline it would wait in the outbox and be told when it is long over.
      if (life.closed || any.state !== 'connected') return
      clearTimeout(idle)
      idle = setTimeout(stopped, ttl)
      active = true
      const now = performance.now()
      if (now - saidAt < (ttl * 2) / 3) return
      saidAt = now
      say(true)
    },
    stopped,
  }
}

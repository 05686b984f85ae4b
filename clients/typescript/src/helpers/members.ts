// Who is there: the list of a topic and its news, and oneself in it.

import type { TidingsError } from '../errors.js'
import type { Client, Member, Subscription, TidingsEvent } from '../types.js'
import { type AnyClient, anyClient, failure, fields, trim } from './data.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

/** Who is listed on a topic. */
export interface MembersSnapshot<Data = unknown> {
  /** Those who joined first before the others. */
  readonly members: readonly Member<Data>[]
  /** Whether the list is whole. */
  readonly ready: boolean
  /** Why the list could not be had, or is not followed any more. */
  readonly error: TidingsError | undefined
}

/** Options of `members`. */
export interface MembersOptions extends WatchOptions {
  /** Be listed, with this data (1 KiB of JSON). Default: only look. Over a socket or a stream. */
  join?: {
    /** What others see of us. */
    data?: unknown
  }
  /** The most that are kept. Default 1,000; the broker has 500 on a topic unless told otherwise. */
  max?: number
}

/** Follows who is listed on a topic, and lists oneself with `join`. A member is named by its `session`. */
export function members<Data = unknown, S = object>(
  client: Client<S>,
  topic: string,
  options: MembersOptions = {},
): Watched<MembersSnapshot<Data>> {
  const any = anyClient(client)
  const life = new Lifetime(options.signal)
  const found = new Map<string, Member<Data>>()
  let ready = false
  /** The list could not be had. */
  let failed = false
  let error: TidingsError | undefined
  const store = new Store<MembersSnapshot<Data>>(
    () => ({ members: [...found.values()], ready, error }),
    options.notifyMs,
  )
  const abort = new AbortController()
  life.add(() => abort.abort())

  // The list is asked for when the news are on their way: what both say is no news.
  const max = options.max ?? 1_000
  let meanwhile: TidingsEvent[] | undefined
  const apply = (event: TidingsEvent) => {
    const member = memberOf<Data>(event.data)
    if (member === undefined) return
    if (event.type === 'presence.left') found.delete(member.session)
    else if (event.type === 'presence.joined') found.set(member.session, member)
    trim(found, max)
  }
  const ask = async () => {
    meanwhile = []
    failed = false
    const list = await any.presence<Data>(topic, { signal: abort.signal })
    found.clear()
    for (const member of list.slice(0, max)) found.set(member.session, member)
    // Behind the list or before it: what came while it was on its way is applied again, and more of it follows.
    for (const event of meanwhile ?? []) apply(event)
    meanwhile = undefined
    ready = true
    error = undefined
    store.changed()
  }
  const asked = (asking: Promise<void>) =>
    asking.catch((cause: unknown) => {
      if (life.closed) return
      failed = true
      meanwhile = undefined
      error = failure(cause)
      store.changed()
    })
  const news = any.subscribe(`$presence.${topic}`, (event) => {
    apply(event)
    meanwhile?.push(event)
    if (meanwhile !== undefined && meanwhile.length > max) meanwhile.shift()
    store.changed()
  })
  // In another log, or behind a hole, the news are not enough.
  news.on('gap', () => void asked(ask()))
  const refused = (subscription: Subscription) => {
    if (subscription.error === undefined) return
    error = subscription.error
    store.changed()
  }
  news.on('state', () => {
    refused(news)
    // Where the list could not be had it may be when the news come again.
    if (news.state === 'live' && failed) void asked(ask())
  })
  void asked(news.ready({ signal: abort.signal }).then(ask))
  life.add(() => news.unsubscribe())
  if (options.join !== undefined) join(any, topic, options.join.data, life, refused)
  life.add(() => store.flush())
  return { snapshot: store.snapshot, subscribe: store.subscribe, close: life.close }
}

/** Lists oneself on a topic without looking; the state is why that was refused, if it was. */
export function listed<S = object>(client: Client<S>, topic: string, data: unknown): Watched<TidingsError | undefined> {
  const life = new Lifetime(undefined)
  let error: TidingsError | undefined
  const store = new Store<TidingsError | undefined>(() => error, 0)
  join(anyClient(client), topic, data, life, (subscription) => {
    error = subscription.error
    store.changed()
  })
  return { snapshot: store.snapshot, subscribe: store.subscribe, close: life.close }
}

/** A client's own joins of a topic: the data, and when it has left. */
interface Join {
  readonly data: string | undefined
  readonly left: Promise<void>
}

const joins = new WeakMap<AnyClient, Map<string, Set<Join>>>()

/**
 * Lists this client on the topic until the life ends. A session is listed with one data at a time: with another one it waits
 * until the first has left, as where a component is rendered with other data.
 */
function join(
  client: AnyClient,
  topic: string,
  data: unknown,
  life: Lifetime,
  refused: (subscription: Subscription) => void,
): void {
  const ofClient = joins.get(client) ?? new Map<string, Set<Join>>()
  joins.set(client, ofClient)
  const here = ofClient.get(topic) ?? new Set<Join>()
  ofClient.set(topic, here)
  let leave = (): void => undefined
  const left = new Promise<void>((resolve) => {
    leave = resolve
  })
  const mine: Join = { data: JSON.stringify(data), left }
  const others = [...here].filter((other) => other.data !== mine.data).map((other) => other.left)
  here.add(mine)
  let listed: Subscription | undefined
  const begin = (): void => {
    if (life.closed) return
    // Its events are for others: a type that nobody uses keeps them away.
    const made = client.subscribe(topic, { presence: { data }, types: ['presence.none'] }, () => undefined)
    made.on('state', () => refused(made))
    listed = made
  }
  if (others.length === 0) begin()
  else void Promise.all(others).then(begin)
  life.add(async () => {
    await listed?.unsubscribe().catch(() => undefined)
    here.delete(mine)
    if (here.size === 0 && ofClient.get(topic) === here) ofClient.delete(topic)
    leave()
  })
}

function memberOf<Data>(data: unknown): Member<Data> | undefined {
  const { session, subject, since } = fields(data)
  return typeof session === 'string' && typeof subject === 'string' && typeof since === 'string'
    ? (data as Member<Data>)
    : undefined
}

// Streamed messages of a subscription, with what a late reader has missed read from the log.

import { TidingsError } from '../errors.js'
import type { Client, SubscribeOptions, Subscription } from '../types.js'
import { type AssembledMessage, Assembly, type AssemblyBounds, CHUNK } from './assembly.js'
import { type AnyClient, anyClient, failure } from './data.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

export type { AssembledMessage, AssemblyBounds } from './assembly.js'

/** Options of `assemble`. */
export interface AssembleOptions<S> extends WatchOptions, AssemblyBounds {
  /**
   * With it the beginning of a message that a reader came too late for is read from the log. Default: none, and such
   * messages are `missing`.
   */
  client?: Client<S>
  /** The most events that are read for that. Default 10,000. */
  recoverMax?: number
}

/** Messages that are put together. */
export interface Assembled extends Watched<readonly AssembledMessage[]> {
  /** The message of this correlation: the same object until it changes. */
  get(correlation: string): AssembledMessage | undefined
}

/**
 * Puts together the messages whose chunks come on a subscription that was made without a handler: one for each
 * correlation. Chunks that come twice, in another order, or after a lost connection make the same texts.
 *
 * ```ts
 * const messages = assemble(client.subscribe('chat.7', { after: 'first', types: ['message.chunk'] }))
 * messages.subscribe(() => render(messages.snapshot()))
 * ```
 */
export function assemble<S>(subscription: Subscription, options: AssembleOptions<S> = {}): Assembled {
  const life = new Lifetime(options.signal)
  const assembly = new Assembly(options)
  const store = new Store<readonly AssembledMessage[]>(() => assembly.all(), options.notifyMs)
  const client = options.client && anyClient(options.client)
  const recovering = new Set<string>()
  const reads = new AbortController()
  /** One after the other: many messages may have begun before this reader came. */
  let recoveries: Promise<unknown> = Promise.resolve()

  const changed = (correlation: string | undefined) => {
    if (correlation === undefined) return
    store.changed()
    const message = assembly.get(correlation)
    if (client === undefined || !message?.missing || message.error !== undefined || recovering.has(correlation)) return
    recovering.add(correlation)
    const read = async (): Promise<void> => {
      for (let waitMs = 500; !life.closed; waitMs = Math.min(2 * waitMs, 30_000)) {
        try {
          return await recover(client, assembly, message, options.recoverMax ?? 10_000, reads.signal)
        } catch (cause) {
          const error = failure(cause)
          if (life.closed) return
          if (!error.retryable) return void assembly.giveUp(error, [correlation])
          await pause(error.retryAfterMs ?? waitMs, reads.signal)
        }
      }
    }
    recoveries = recoveries.then(read).then(() => {
      recovering.delete(correlation)
      if (!life.closed) store.changed()
    })
  }
  life.add(() => reads.abort())
  life.add(
    subscription.on('gap', (gap) => {
      if (gap.reason === 'log_changed') assembly.clear()
      store.changed()
    }),
  )
  life.add(() => subscription.unsubscribe())
  life.add(() => store.flush())
  void (async () => {
    for await (const event of subscription) {
      if (life.closed) return
      changed(assembly.take(event))
    }
  })().catch(() => life.close())
  return {
    get: (correlation) => assembly.get(correlation),
    snapshot: store.snapshot,
    subscribe: store.subscribe,
    close: life.close,
  }
}

/** Reads what is missing, and ends the message where it is gone. */
async function recover(
  client: AnyClient,
  assembly: Assembly,
  message: AssembledMessage,
  max: number,
  signal: AbortSignal,
): Promise<void> {
  const { correlation, topic, start } = message
  let after: number | 'first' = start === undefined ? 'first' : Math.max(0, start - 1)
  for (let read = 0; read < max; ) {
    const page = await client.read(topic, { after, types: [CHUNK], limit: Math.min(1_000, max - read), signal })
    for (const event of page.events) if (event.correlation === correlation) assembly.take(event)
    if (!assembly.get(correlation)?.missing) return
    read += Math.max(1, page.events.length)
    if (page.cursor >= page.last || page.cursor === after) break
    after = page.cursor
  }
  assembly.giveUp(new TidingsError('offset_gone', 'the beginning of the message is not in the log'), [correlation])
}

/** Waits; ends early, without an error, by the signal. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
  })
}

/** Options of `streamedMessage`. */
export interface StreamedMessageOptions extends WatchOptions, Omit<AssemblyBounds, 'maxMessages'> {
  /** Where to look for it. Default `first`. */
  after?: Extract<SubscribeOptions, { durable?: undefined }>['after']
}

/**
 * One streamed message, from its beginning; `undefined` until its first chunk is here, or the broker has refused to give
 * it: then it has no text and no `source`, and the `error`.
 */
export function streamedMessage<S>(
  client: Client<S>,
  topic: string,
  correlation: string,
  options: StreamedMessageOptions = {},
): Watched<AssembledMessage | undefined> {
  const life = new Lifetime(options.signal)
  const assembly = new Assembly({ ...options, maxMessages: 1 })
  /** In the place of a message that cannot be had. */
  let refused: AssembledMessage | undefined
  const store = new Store(() => assembly.get(correlation) ?? refused, options.notifyMs)
  const wish = { after: options.after ?? ('first' as const), types: [CHUNK] }
  const subscription = anyClient(client).subscribe(topic, wish, (event) => {
    if (event.correlation !== correlation || assembly.take(event) === undefined) return
    store.changed()
    // Nothing more is to come.
    if (assembly.get(correlation)?.complete) void subscription.unsubscribe().catch(() => undefined)
  })
  subscription.on('error', (error) => {
    if (error.retryable) return
    const nobody = { source: '', text: '', start: undefined, startedAt: '', updatedAt: '' }
    refused = { correlation, topic, ...nobody, complete: false, missing: false, error }
    store.changed()
  })
  subscription.on('caught_up', () => {
    // All that is in the log has come, from where it was looked for.
    const gone = new TidingsError('offset_gone', 'the beginning of the message is not in the log')
    if (assembly.giveUp(gone).length > 0) store.changed()
  })
  subscription.on('gap', (gap) => {
    if (gap.reason !== 'log_changed') return
    assembly.clear()
    store.changed()
  })
  life.add(() => subscription.unsubscribe())
  life.add(() => store.flush())
  return { snapshot: store.snapshot, subscribe: store.subscribe, close: life.close }
}

// What is published and not answered, in the order in which it was published. The machine; storage is behind it.
//
// - An entry is stored, then sent, then answered, then forgotten. It is sent again, under the same ids, on every new
//   connection until it is answered: the broker appends it once.
// - Entries are sent in their order. Where one is to be tried later, nothing is sent before then, nor before all that is on
//   its way is answered: the broker refuses what follows it too.

import { failure, type TidingsError } from '../errors.js'
import type { OutboxEntry, OutboxEvent, OutboxOptions, OutboxStorage } from '../options.js'
import type { Published } from '../types.js'
import type { Link } from './link.js'
import { ended, errorOf, isFinal, isOfLink } from './verdict.js'
import { abortable, alarm } from './wait.js'
import { weight } from './weight.js'

/** How many bytes may be on their way. */
const FLIGHT_BYTES = 1 << 20
/** How long to wait after an answer that says to try again and not when. */
const RETRY_MS = 500

interface Item {
  readonly _entry: OutboxEntry
  /** Stored, where there is a storage: only then it is sent. */
  _stored: boolean
  /** It was sent on the connection that there is. */
  _sent: boolean
  readonly _resolve: (published: Published[]) => void
  readonly _reject: (error: TidingsError) => void
}

export interface Outbox {
  /** Opens the storage, and takes over what others have left in it. */
  _open(): void
  /** The page may go: the storage is let go of. What is here stays and is sent again, which changes nothing. */
  _suspend(): Promise<void>
  /** Takes over a publish: its answer. */
  _publish(events: readonly OutboxEvent[], batch: boolean, signal: AbortSignal | undefined): Promise<Published[]>
  /** There is a connection, or none: what is unanswered is sent again. */
  _attach(link: Link | undefined): void
  /** Those who wait are told; what is stored stays there. */
  _close(): Promise<void>
}

/** `changed` is told the number of events, `failed` what no caller waits for. */
export function createOutbox(
  { storage: kept, maxEvents = 1_000, maxBytes = 5_000_000, maxAgeMs = 86_400_000, overflow }: OutboxOptions,
  changed: (events: number) => void,
  failed: (error: TidingsError) => void,
): Outbox {
  const storage: OutboxStorage | undefined = kept === 'memory' ? undefined : kept
  const items: Item[] = []
  const ids = new Set<string>()
  let events = 0
  let bytes = 0
  let link: Link | undefined
  let flight = 0
  let flightBytes = 0
  /** One was refused for now. */
  let held = false
  let open: Promise<unknown> | undefined
  /** The storage is open. Where it cannot be had, what is published is kept in memory, which is told. */
  let stores = false
  let closed = false

  const resume = (): void => {
    open = storage?.open(adopt).then(
      () => {
        stores = true
      },
      (cause) => {
        stores = false
        failed(failure('internal', 'the outbox cannot open', cause))
      },
    )
  }

  const count = ({ id, events: those, bytes: size }: OutboxEntry, sign: 1 | -1): void => {
    if (sign > 0) ids.add(id)
    else ids.delete(id)
    events += sign * those.length
    bytes += sign * size
    changed(events)
  }

  /** Takes over what somebody else has stored. */
  const adopt = (entries: readonly OutboxEntry[]): void => {
    const found = entries
      .filter(({ id }) => !ids.has(id))
      .map((entry): Item => ({ _entry: entry, _stored: true, _sent: false, _resolve() {}, _reject: failed }))
    // They were published before what is new here; what is on its way already stays in front.
    const at = items.findIndex(({ _sent: sent }) => !sent)
    items.splice(at < 0 ? items.length : at, 0, ...found)
    for (const { _entry: entry } of found) count(entry, 1)
    pump()
  }

  const store = async (item: Item, to: OutboxStorage): Promise<void> => {
    try {
      await open
      if (stores) await to.add(item._entry)
      item._stored = true
      // It was taken back while it was written.
      if (stores && !items.includes(item)) await to.remove([item._entry.id])
    } catch (cause) {
      refuse(item, failure('outbox_full', 'the outbox cannot store it', cause))
    }
    pump()
  }

  const remove = (item: Item): boolean => {
    const at = items.indexOf(item)
    if (at < 0) return false
    items.splice(at, 1)
    if (item._stored && stores) {
      storage?.remove([item._entry.id]).catch((cause) => {
        // It is sent once more by whoever finds it, which changes nothing.
        failed(failure('internal', 'the outbox cannot forget it', cause))
      })
    }
    count(item._entry, -1)
    return true
  }

  const refuse = (item: Item, error: TidingsError): void => {
    if (remove(item)) item._reject(error)
  }

  /** Sends what may be sent now. */
  const pump = (): void => {
    expire()
    const by = link
    // What is on its way behind one that was refused is refused too: all of it is waited for.
    if (!by || hold._on() || (held && flight)) return
    held = false
    for (const item of items) {
      if (item._sent) continue
      const size = item._entry.bytes
      if (!item._stored || by !== link || flight >= by._window || (flight && flightBytes + size > FLIGHT_BYTES)) return
      item._sent = true
      flight++
      flightBytes += size
      by._publish(item._entry, flight > 1 || undefined)
        .then(
          (published) => () => remove(item) && item._resolve(published),
          (cause) => () => {
            const error = errorOf(cause)
            if (isFinal(error)) return refuse(item, error)
            // The connection is about to be lost, and comes again.
            if (by !== link || isOfLink(error)) return
            item._sent = false
            held = true
            hold._set(error.retryAfterMs ?? RETRY_MS)
          },
        )
        .then((act) => {
          // An answer of a connection that is gone is as good as any, and a failure of it says nothing.
          if (by === link) {
            flight--
            flightBytes -= size
          }
          act()
          pump()
        })
    }
  }
  const hold = alarm(pump)

  const expire = (): void => {
    expiry._clear()
    if (closed) return
    for (;;) {
      const [oldest] = items
      if (!oldest) return
      const leftMs = oldest._entry.at + maxAgeMs - Date.now()
      if (leftMs > 0) return expiry._set(leftMs)
      refuse(oldest, failure('outbox_expired', `no answer within ${maxAgeMs} ms`))
    }
  }
  const expiry = alarm(pump)

  resume()
  return {
    _open: resume,
    _suspend: async () => storage?.close(),
    async _publish(those, batch, signal) {
      if (closed) throw ended()
      const [first] = those
      if (!first) return []
      const size = weight(those)
      const entry: OutboxEntry = { id: first.id, at: Date.now(), bytes: size, batch, events: those }
      if (ids.has(entry.id)) throw failure('conflict', `${entry.id} is there already`)
      while (events + those.length > maxEvents || bytes + size > maxBytes) {
        // What never has room would drop all others, and be refused nevertheless.
        const never = those.length > maxEvents || size > maxBytes
        const error = failure(never ? 'too_large' : 'outbox_full', `at most ${maxEvents} events, ${maxBytes} bytes`)
        const oldest = !never && overflow === 'drop-oldest' && items.find(({ _sent: sent }) => !sent)
        if (!oldest) throw error
        refuse(oldest, error)
      }
      return abortable<Published[]>(signal, (resolve, reject) => {
        const item: Item = { _entry: entry, _stored: !storage, _sent: false, _resolve: resolve, _reject: reject }
        items.push(item)
        count(entry, 1)
        if (storage) void store(item, storage)
        else pump()
        // What has been sent may have arrived: it stays until that is known.
        return () => signal?.aborted && !item._sent && remove(item)
      })
    },
    _attach(to) {
      link = to
      flight = flightBytes = 0
      for (const item of items) item._sent = false
      pump()
    },
    async _close() {
      closed = true
      link = undefined
      hold._clear()
      expiry._clear()
      for (const { _reject: reject } of items.splice(0)) reject(ended())
      await open
      await storage?.close()
    },
  }
}

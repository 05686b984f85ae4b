// What is published and not answered, in the order in which it was published. The machine; storage is behind it.
//
// - An entry is stored, then sent, then answered, then forgotten. It is sent again, under the same ids, on every new
//   connection until it is answered: the broker appends it once.
// - Entries are sent in their order. Where one is to be tried later, nothing is sent meanwhile.

import { failure, type TidingsError } from '../errors.js'
import type { OutboxEntry, OutboxEvent, OutboxOptions, OutboxStorage } from '../options.js'
import type { Published } from '../types.js'
import type { Link } from './link.js'
import { errorOf, isFinal, isOfLink } from './verdict.js'
import { abortable, alarm } from './wait.js'
import { weight } from './weight.js'

/** How many bytes may be on their way. */
const FLIGHT_BYTES = 1 << 20
/** How long to wait after an answer that says to try again and not when. */
const RETRY_MS = 500

interface Item {
  readonly entry: OutboxEntry
  /** Stored, where there is a storage: only then it is sent. */
  stored: boolean
  /** It was sent on the connection that there is. */
  sent: boolean
  readonly resolve: (published: Published[]) => void
  readonly reject: (error: TidingsError) => void
}

export interface Outbox {
  /** Opens the storage, and takes over what others have left in it. */
  resume(): void
  /** The page may go: the storage is let go of. What is here stays and is sent again, which changes nothing. */
  suspend(): Promise<void>
  /** Takes over a publish: its answer. */
  add(events: readonly OutboxEvent[], batch: boolean, signal: AbortSignal | undefined): Promise<Published[]>
  /** There is a connection, or none: what is unanswered is sent again. */
  attach(link: Link | undefined): void
  /** Those who wait are told; what is stored stays there. */
  close(): Promise<void>
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
        failed(failure('internal', 'the outbox cannot open its storage', cause))
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
      .map((entry): Item => ({ entry, stored: true, sent: false, resolve() {}, reject: failed }))
    // They were published before what is new here; what is on its way already stays in front.
    const at = items.findIndex(({ sent }) => !sent)
    items.splice(at < 0 ? items.length : at, 0, ...found)
    for (const { entry } of found) count(entry, 1)
    pump()
  }

  const store = async (item: Item, to: OutboxStorage): Promise<void> => {
    try {
      await open
      if (stores) await to.add(item.entry)
      item.stored = true
      // It was taken back while it was written.
      if (stores && !items.includes(item)) await to.remove([item.entry.id])
    } catch (cause) {
      remove(item)
      item.reject(failure('outbox_full', 'the outbox cannot store the event', cause))
    }
    pump()
  }

  const remove = (item: Item): boolean => {
    const at = items.indexOf(item)
    if (at < 0) return false
    items.splice(at, 1)
    if (item.stored && stores) {
      storage?.remove([item.entry.id]).catch((cause) => {
        // It is sent once more by whoever finds it, which changes nothing.
        failed(failure('internal', 'the outbox cannot forget the event', cause))
      })
    }
    count(item.entry, -1)
    return true
  }

  const refuse = (item: Item, error: TidingsError): void => {
    if (remove(item)) item.reject(error)
  }

  /** Sends what may be sent now. */
  const pump = (): void => {
    expire()
    const by = link
    if (!by || hold.on()) return
    for (const item of items) {
      if (item.sent) continue
      const size = item.entry.bytes
      const full = flight >= by.window || (flight > 0 && flightBytes + size > FLIGHT_BYTES)
      if (!item.stored || full || by !== link) return
      item.sent = true
      flight++
      flightBytes += size
      // An answer of a connection that is gone is as good as any, and a failure of it says nothing.
      const answered = (act: () => void): void => {
        const current = by === link
        if (current) {
          flight--
          flightBytes -= size
        }
        act()
        if (current) pump()
      }
      by.publish(item.entry).then(
        (published) => answered(() => remove(item) && item.resolve(published)),
        (cause) =>
          answered(() => {
            const error = errorOf(cause)
            if (isFinal(error)) return refuse(item, error)
            // The connection is about to be lost, and comes again.
            if (by !== link || isOfLink(error)) return
            item.sent = false
            if (!hold.on()) hold.set(error.retryAfterMs ?? RETRY_MS)
          }),
      )
    }
  }
  const hold = alarm(pump)

  const expire = (): void => {
    expiry.clear()
    if (closed) return
    for (;;) {
      const [oldest] = items
      if (!oldest) return
      const leftMs = oldest.entry.at + maxAgeMs - Date.now()
      if (leftMs > 0) return expiry.set(leftMs)
      refuse(oldest, failure('outbox_expired', `the outbox has had it for ${maxAgeMs} ms`))
    }
  }
  const expiry = alarm(pump)

  const outbox: Outbox = {
    resume,
    suspend: async () => storage?.close(),
    async add(those, batch, signal) {
      if (closed) throw ended()
      const [first] = those
      if (!first) return []
      const size = weight(those)
      const entry: OutboxEntry = { id: first.id, at: Date.now(), bytes: size, batch, events: those }
      if (ids.has(entry.id)) throw failure('conflict', `${entry.id} is in the outbox already`)
      while (events + those.length > maxEvents || bytes + size > maxBytes) {
        const oldest = overflow === 'drop-oldest' && items.find(({ sent }) => !sent)
        if (!oldest) throw failure('outbox_full', `the outbox has room for ${maxEvents} events, ${maxBytes} bytes`)
        refuse(oldest, failure('outbox_full', 'the outbox has newer events in its place'))
      }
      return abortable<Published[]>(signal, (resolve, reject) => {
        const item: Item = { entry, stored: !storage, sent: false, resolve, reject }
        items.push(item)
        count(entry, 1)
        if (storage) void store(item, storage)
        else pump()
        // What has been sent may have arrived: it stays until that is known.
        return () => signal?.aborted && !item.sent && remove(item)
      })
    },
    attach(to) {
      link = to
      flight = flightBytes = 0
      for (const item of items) item.sent = false
      pump()
    },
    async close() {
      closed = true
      outbox.attach(undefined)
      hold.clear()
      expiry.clear()
      for (const { reject } of items.splice(0)) reject(ended())
      await open
      await storage?.close()
    },
  }
  resume()
  return outbox
}

function ended(): TidingsError {
  return failure('closed', 'the client is closed')
}

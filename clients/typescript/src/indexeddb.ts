// The outbox in IndexedDB: it survives a reload, a crash of the browser and a restart of the broker.
//
// - A tab sends what it has added. It holds a Web Lock for as long as it lives; what stands under the name of a tab whose
//   lock is free was left behind, and goes to the first that takes that lock. So nothing is sent by two tabs.
// - Where there are no Web Locks, all that is found is taken: two tabs may send the same, and the broker appends it once.
// - What is added in the same turn is written in one transaction.

import { uuidv7 } from './core/uuid.js'
import type { OutboxEntry, OutboxStorage } from './options.js'

/** Options of `indexedDb`. */
export interface IndexedDbOptions {
  /** The name of the database: one for each broker and user. Default `tidings`. */
  name?: string
  /** How often it is looked for what tabs that are gone have left behind. Default 5,000. */
  adoptEveryMs?: number
}

interface Row {
  owner: string
  /** In the order in which the owner added them. */
  seq: number
  entry: OutboxEntry
}

const STORE = 'outbox'
/** How long opening may take. There have been versions of browsers in which it is never answered (WebKit bug 226547). */
const OPEN_MS = 10_000

/**
 * Keeps the outbox in IndexedDB: `createClient(url, { outbox: { storage: indexedDb() } })`. A storage belongs to one
 * client. Where the browser does not open it, within 10 s, the outbox is in memory, and the client's `error` says so.
 */
export function indexedDb(options: IndexedDbOptions = {}): OutboxStorage {
  return new IndexedDbOutbox(options.name ?? 'tidings', options.adoptEveryMs ?? 5_000)
}

class IndexedDbOutbox implements OutboxStorage {
  readonly #name: string
  readonly #everyMs: number
  #owner = uuidv7()
  readonly #keys = new Map<string, [owner: string, seq: number]>()
  /** Absent when the browser, or another version of the page, has closed it: it is opened again where it is needed. */
  #db: Promise<IDBDatabase> | undefined
  #closed = true
  #seq = 0
  #held = new Map<string, () => void>()
  #timer: ReturnType<typeof setInterval> | undefined
  #writes: { row: Row; resolve: () => void; reject: (error: unknown) => void }[] = []

  constructor(name: string, everyMs: number) {
    this.#name = name
    this.#everyMs = everyMs
  }

  async open(found: (entries: readonly OutboxEntry[]) => void): Promise<void> {
    this.#closed = false
    await this.#database()
    if (!(await this.#hold(this.#owner))) {
      // Another tab has taken over what stood under this name while the page was away.
      this.#adopted.delete(this.#owner)
      this.#owner = uuidv7()
      this.#adopted.add(this.#owner)
      await this.#hold(this.#owner)
    }
    const look = async (): Promise<void> => this.#adopt(await this.#database(), found)
    await look()
    clearInterval(this.#timer)
    // Only other tabs can leave something behind, and only a lock says that they are gone.
    if (locks() && !this.#closed) this.#timer = setInterval(() => void look().catch(() => {}), this.#everyMs)
  }

  add(entry: OutboxEntry): Promise<void> {
    const row = { owner: this.#owner, seq: this.#seq++, entry }
    this.#keys.set(entry.id, [row.owner, row.seq])
    return new Promise((resolve, reject) => {
      this.#writes.push({ row, resolve, reject })
      if (this.#writes.length === 1) queueMicrotask(() => void this.#flush())
    })
  }

  async remove(ids: readonly string[]): Promise<void> {
    const keys = ids.flatMap((id) => {
      const key = this.#keys.get(id)
      this.#keys.delete(id)
      return key ? [key] : []
    })
    if (this.#closed || keys.length === 0) return
    await transaction(await this.#database(), (store) => {
      for (const key of keys) store.delete(key)
    })
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#closed = true
    const db = this.#db
    this.#db = undefined
    await this.#flush(db)
    // A page that goes takes everything with it; one that stays in memory has to let go.
    ;(await db?.catch(() => undefined))?.close()
    for (const release of this.#held.values()) release()
    this.#held.clear()
  }

  #database(): Promise<IDBDatabase> {
    if (this.#db) return this.#db
    const gone = (): void => {
      if (this.#db === db) this.#db = undefined
    }
    const db = openDatabase(this.#name, gone)
    db.catch(gone)
    this.#db = db
    return db
  }

  async #flush(from = this.#closed ? undefined : this.#database()): Promise<void> {
    const writes = this.#writes.splice(0)
    if (writes.length === 0) return
    try {
      const db = await from
      if (!db) throw new DOMException('the outbox is closed', 'InvalidStateError')
      await transaction(db, (store) => {
        for (const { row } of writes) store.put(row)
      })
      for (const { resolve } of writes) resolve()
    } catch (error) {
      for (const { reject } of writes) reject(error)
    }
  }

  /** Takes over what those have left behind whose lock is free, one owner after the other. */
  async #adopt(db: IDBDatabase, found: (entries: readonly OutboxEntry[]) => void): Promise<void> {
    const owners = await ownersIn(db)
    for (const owner of owners) {
      if (this.#held.has(owner) && owner !== this.#owner && this.#adopted.has(owner)) continue
      if (owner === this.#owner ? this.#adopted.has(owner) : !(await this.#hold(owner))) continue
      this.#adopted.add(owner)
      const rows = await rowsOf(db, owner)
      for (const { seq, entry } of rows) this.#keys.set(entry.id, [owner, seq])
      if (rows.length > 0) found(rows.map(({ entry }) => entry))
    }
  }

  readonly #adopted = new Set<string>([this.#owner])

  /** Takes the lock of an owner if it is free, and keeps it until `close`. */
  async #hold(owner: string): Promise<boolean> {
    if (this.#held.has(owner)) return true
    const manager = locks()
    if (!manager) {
      this.#held.set(owner, () => {})
      return true
    }
    return new Promise((resolve, reject) => {
      manager
        .request(`tidings:${this.#name}:${owner}`, { ifAvailable: true }, (lock) => {
          if (!lock) return resolve(false)
          return new Promise<void>((release) => {
            this.#held.set(owner, release)
            resolve(true)
          })
        })
        .catch(reject)
    })
  }
}

function locks(): LockManager | undefined {
  return (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks
}

/** `gone` is called when it is closed by others. */
function openDatabase(name: string, gone: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1)
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      reject(new DOMException(`no answer within ${OPEN_MS} ms`, 'TimeoutError'))
    }, OPEN_MS)
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: ['owner', 'seq'] })
    request.onsuccess = () => {
      clearTimeout(timer)
      if (isLate) return request.result.close()
      // Another version of the page wants to change it: it is not held up.
      request.result.onversionchange = () => {
        request.result.close()
        gone()
      }
      request.result.onclose = gone
      resolve(request.result)
    }
    request.onerror = () => {
      clearTimeout(timer)
      reject(request.error)
    }
  })
}

function transaction(db: IDBDatabase, act: (store: IDBObjectStore) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const tx = db.transaction(STORE, 'readwrite')
    tx.oncomplete = () => resolve()
    tx.onabort = tx.onerror = () => reject(tx.error)
    act(tx.objectStore(STORE))
  })
}

/** Who has something in it, without reading what that is. */
function ownersIn(db: IDBDatabase): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const owners: string[] = []
    const request = db.transaction(STORE).objectStore(STORE).openKeyCursor()
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const cursor = request.result
      if (!cursor) return resolve(owners)
      const [owner] = cursor.key as [string, number]
      owners.push(owner)
      // On to the next owner: behind all numbers of this one.
      cursor.continue([owner, []])
    }
  })
}

function rowsOf(db: IDBDatabase, owner: string): Promise<Row[]> {
  return new Promise((resolve, reject) => {
    const range = IDBKeyRange.bound([owner, 0], [owner, []], false, true)
    const request = db.transaction(STORE).objectStore(STORE).getAll(range)
    request.onerror = () => reject(request.error)
    request.onsuccess = () => resolve(request.result as Row[])
  })
}

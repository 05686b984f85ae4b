// The outbox in IndexedDB where the browser takes it away.

import 'fake-indexeddb/auto'
import { afterEach, expect, test, vi } from 'vitest'
import { createClient, type OutboxEntry, type OutboxStorage } from '../../src/index.js'
import { indexedDb } from '../../src/indexeddb.js'
import { asWebSocket, FakeSocket } from '../support/fake-socket.js'
import { FakeLocks } from '../support/locks.js'

afterEach(() => vi.unstubAllGlobals())

const entry = (id: string): OutboxEntry => ({ id, at: 0, bytes: 1, batch: false, events: [] })

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

async function rows(name: string): Promise<{ owner: string; entry: OutboxEntry }[]> {
  const db = await done(indexedDB.open(name))
  try {
    return await done(db.transaction('outbox').objectStore('outbox').getAll())
  } finally {
    db.close()
  }
}

test('it is there where the page came without TLS', async () => {
  // As in a browser for a page of another host by plain HTTP: no locks either.
  vi.stubGlobal('crypto', { getRandomValues: crypto.getRandomValues.bind(crypto) })
  const storage = indexedDb({ name: 'insecure' })
  await storage.open(() => {})
  await storage.add(entry('a'))
  expect((await rows('insecure')).map((row) => row.entry.id)).toEqual(['a'])
  await storage.close()
})

test('it is opened again where another version of the page has had it closed', async () => {
  const storage = indexedDb({ name: 'gone' })
  await storage.open(() => {})
  await storage.add(entry('a'))
  await done(indexedDB.deleteDatabase('gone'))
  await storage.add(entry('b'))
  expect((await rows('gone')).map((row) => row.entry.id)).toEqual(['b'])
  await storage.close()
})

test('a page that comes back writes under another name where its own was taken over', async () => {
  vi.stubGlobal('navigator', { locks: new FakeLocks() })
  const [away, other] = [indexedDb({ name: 'back' }), indexedDb({ name: 'back' })]
  await away.open(() => {})
  await away.add(entry('a'))
  await away.close()
  const found: string[] = []
  await other.open((entries) => void found.push(...entries.map(({ id }) => id)))
  expect(found).toEqual(['a'])
  await away.open(() => {})
  await away.add(entry('b'))
  expect(new Set((await rows('back')).map((row) => row.owner)).size).toBe(2)
  await away.close()
  await other.close()
})

test('one that never opens is given up, and closed where it opens later', async () => {
  vi.useFakeTimers()
  const close = vi.fn()
  const request = { result: { close } } as unknown as IDBOpenDBRequest
  vi.stubGlobal('indexedDB', { open: () => request })
  try {
    const opened = indexedDb({ name: 'never' }).open(() => {})
    const refused = expect(opened).rejects.toMatchObject({ name: 'TimeoutError' })
    await vi.advanceTimersByTimeAsync(10_000)
    await refused
    request.onsuccess?.(new Event('success'))
    expect(close).toHaveBeenCalledOnce()
  } finally {
    vi.useRealTimers()
  }
})

test('where there is none the outbox is in memory, which is told once', async () => {
  FakeSocket.made = []
  const none = vi.fn(() => Promise.reject(new DOMException('private', 'InvalidStateError')))
  const storage: OutboxStorage = { open: none, add: none, remove: none, close: () => Promise.resolve() }
  const client = createClient('http://broker.test', {
    WebSocket: asWebSocket,
    transports: ['websocket'],
    outbox: { storage },
  })
  const errors: string[] = []
  client.on('error', ({ message }) => errors.push(message))
  await vi.waitFor(() => FakeSocket.last.accept())
  for (const id of ['x', 'y']) {
    const published = client.publish('a', id, { id })
    await vi.waitFor(() => expect(FakeSocket.last.asked('publish')).toMatchObject({ data: id }))
    FakeSocket.last.reply('publish', { published: { offset: 1, id } })
    await published
  }
  expect(errors).toEqual(['the outbox cannot open'])
  await client.close()
})

// Clients with sockets and clocks of the test; each test ends with all of them closed and no timer left.

import { afterEach, beforeEach, expect, vi } from 'vitest'
import { type Client, type ClientOptions, createClient } from '../../src/index.js'
import { asWebSocket, FakeSocket } from './fake-socket.js'

const clients: Client[] = []

/** Holds the clock before each test of the file, and looks behind each that nothing is left. */
export function heldClients(): void {
  beforeEach(() => {
    vi.useFakeTimers()
    FakeSocket.made = []
  })
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.close()
    expect(vi.getTimerCount(), 'timers left after close').toBe(0)
    vi.useRealTimers()
  })
}

const fetchNothing: typeof fetch = () => Promise.reject(new TypeError('no network'))

export function connect(options: ClientOptions = {}): Client {
  const client = createClient('http://broker.test/base/', {
    WebSocket: asWebSocket,
    fetch: fetchNothing,
    transports: ['websocket'],
    reconnect: { jitter: 'none' },
    ...options,
  })
  clients.push(client)
  return client
}

/** Lets promises settle. */
export const settle = async (): Promise<void> => void (await vi.advanceTimersByTimeAsync(0))

export async function connected(options: ClientOptions = {}): Promise<Client> {
  const client = connect(options)
  await settle()
  FakeSocket.last.accept()
  await settle()
  expect(client.state).toBe('connected')
  return client
}

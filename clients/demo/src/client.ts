// The one client of this window. All that the page shows goes through it, and it goes over a line that can be cut.

import { createClient } from 'tidings'
import { indexedDb } from 'tidings/indexeddb'
import { fetchOver } from './network/fetch'
import { Line } from './network/line'
import { socketsOver } from './network/socket'

export const line = new Line()

export const client = createClient(location.origin, {
  name: 'tidings-demo',
  WebSocket: socketsOver(line),
  fetch: fetchOver(line),
  // What was published and not answered outlives the page.
  outbox: { storage: indexedDb({ name: 'tidings-demo' }) },
  // Sooner than anybody else would want it: somebody is looking.
  reconnect: { minMs: 250, maxMs: 2_000 },
  upgradeEveryMs: 2_000,
})

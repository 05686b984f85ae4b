// A broker and clients of it for the tests of a file, taken away when they end.

import { afterAll, beforeAll } from 'vitest'
import { type Client, type ClientOptions, createClient, type TransportName } from '../../src/index.js'
import { type Broker, startBroker, stopBrokers } from '../support/broker.js'

export interface World {
  broker: Broker
  connect(options?: ClientOptions): Client
  /** A part of a topic that no test before had. */
  fresh(): string
  /** Starts the broker that was killed. */
  start(was: { port: number; data: string }): Promise<void>
  /** kill -9, and a start on the same port and data. */
  restart(): Promise<void>
}

/** With clients that speak over this transport alone, or over whichever is best. */
export function world(transport?: TransportName): World {
  const clients: Client[] = []
  let names = 0
  let broker: Broker | undefined
  beforeAll(async () => {
    broker = await startBroker()
  })
  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close()))
    await stopBrokers()
  })
  return {
    get broker() {
      if (broker === undefined) throw new Error('the broker is started before the tests')
      return broker
    },
    connect(options = {}) {
      const client = createClient(this.broker.url, {
        reconnect: { minMs: 20, maxMs: 200 },
        ...(transport && { transports: [transport] }),
        ...options,
      })
      clients.push(client)
      return client
    },
    fresh: () => `t${process.pid}-${++names}`,
    async restart() {
      const { port, data } = this.broker
      await this.broker.kill()
      await this.start({ port, data })
    },
    async start(was) {
      broker = await startBroker(was)
    },
  }
}

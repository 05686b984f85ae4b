// A TCP proxy in front of a broker that does what networks do: cuts, goes silent, delays, blocks transports.

import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** What a connection asks for, by its first bytes. */
type Kind = 'websocket' | 'stream' | 'poll' | 'other'

interface Pair {
  readonly near: Socket
  readonly far: Socket
  kind: Kind
}

export class TcpProxy {
  /** Connections that are refused, by what they ask for. */
  readonly blocked = new Set<Kind>()
  /** How long every piece waits, in milliseconds. */
  delayMs = 0
  /** Nothing goes through, and nobody is told. */
  silent = false
  /** How many connections were cut. */
  cuts = 0
  readonly #server: Server
  readonly #pairs = new Set<Pair>()
  readonly #port: () => number

  /** `port` says where the broker listens now. */
  static async start(port: () => number): Promise<TcpProxy> {
    const proxy = new TcpProxy(port)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  private constructor(port: () => number) {
    this.#port = port
    this.#server = createServer((near) => this.#accept(near))
  }

  get url(): string {
    const address = this.#server.address()
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  }

  get connections(): readonly Kind[] {
    return [...this.#pairs].map(({ kind }) => kind)
  }

  /** Ends all connections, or those of one kind, without a word. */
  cut(kind?: Kind): void {
    for (const pair of [...this.#pairs]) {
      if (kind !== undefined && pair.kind !== kind) continue
      this.cuts++
      this.#end(pair)
    }
  }

  async close(): Promise<void> {
    this.cut()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #accept(near: Socket): void {
    const far = connect(this.#port(), '127.0.0.1')
    const pair: Pair = { near, far, kind: 'other' }
    this.#pairs.add(pair)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true)
      from.on('data', (piece) => {
        if (from === near && !this.#admit(pair, piece)) return this.#end(pair)
        if (this.silent) return
        if (this.delayMs > 0) setTimeout(() => to.writable && to.write(piece), this.delayMs)
        else to.write(piece)
      })
      from.on('error', () => this.#end(pair))
      from.on('close', () => this.#end(pair))
    }
  }

  /** Looks at the heads of requests; a connection that is kept has several. */
  #admit(pair: Pair, piece: Buffer): boolean {
    const text = piece.toString('latin1', 0, 4096)
    if (/^(GET|POST|PUT|DELETE|OPTIONS) /.test(text)) {
      if (/upgrade: websocket/i.test(text)) pair.kind = 'websocket'
      else if (/accept: text\/event-stream/i.test(text)) pair.kind = 'stream'
      else pair.kind = /[?&]wait=|\/fetch /.test(text) ? 'poll' : 'other'
    }
    return !this.blocked.has(pair.kind)
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair)
    pair.near.destroy()
    pair.far.destroy()
  }
}

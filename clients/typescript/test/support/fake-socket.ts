// A WebSocket whose other end is the test.

import type { Words } from '../../src/index.js'

/** Sockets in the order in which they were made. */
export class FakeSocket extends EventTarget {
  static made: FakeSocket[] = []
  static get last(): FakeSocket {
    const last = FakeSocket.made.at(-1)
    if (!last) throw new Error('no socket was made')
    return last
  }

  binaryType = 'blob'
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  onerror: (() => void) | null = null
  closed = false
  readonly sent: Words[] = []

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    super()
    FakeSocket.made.push(this)
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text))
  }

  close(): void {
    this.closed = true
  }

  /** The broker accepts and answers the `connect`. */
  accept(connected: Words = {}): this {
    this.onopen?.()
    this.reply('connect', {
      connected: {
        session: 's',
        subject: 'alice',
        log: LOG,
        ping_interval_ms: 25_000,
        max_message_bytes: 1_000,
        server: 'x',
        first: 1,
        last: 0,
        ...connected,
      },
    })
    return this
  }

  /** The newest request of this kind. */
  asked(kind: string): Words & { id: number } {
    const found = this.sent.findLast((request) => kind in request)
    if (!found) throw new Error(`no ${kind} was sent`)
    return { ...(found[kind] as Words), id: found.id as number }
  }

  /** Answers the newest request of this kind. */
  reply(kind: string, answer: Words): void {
    this.say({ reply: this.asked(kind).id, ...answer })
  }

  say(message: Words): void {
    this.onmessage?.({ data: JSON.stringify(message) })
  }

  /** The broker, or the network, closes. */
  drop(code = 1006, reason = ''): void {
    this.onclose?.({ code, reason })
  }
}

export const LOG = '9f3c21d0-5a3e-4c1b-8f00-0123456789ab'
export const asWebSocket = FakeSocket as unknown as typeof WebSocket

export function batch(after: number, cursor: number, offsets: number[], more: Words = {}): Words {
  const events = offsets.map((offset) => ({
    offset,
    topic: 'a.b',
    id: `${offset}`,
    type: 'message',
    source: 's',
    time: '2026-11-21T05:16:00.123Z',
    data: offset,
  }))
  return { events: { subscription: 1, after, cursor, events, ...more } }
}

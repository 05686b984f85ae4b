// Server-sent events out of text that comes in pieces (WHATWG HTML §9.2).

/** One event, or an `id` without data, which moves the cursor. */
export interface SseEvent {
  readonly id: string | undefined
  readonly event: string
  readonly data: string | undefined
}

/** More text than this without an end of a line is no stream of ours: the largest message, in base64, and an envelope. */
const LINE_MAX = 96 << 20

export class SseParser {
  #rest = ''
  #id: string | undefined
  #event = 'message'
  #data: string | undefined

  /** The events that are whole with this piece. */
  push(piece: string): SseEvent[] {
    const events: SseEvent[] = []
    // A CR at the end may be half of a CRLF: it waits for what follows.
    let text = this.#rest + piece
    const held = text.endsWith('\r') ? '\r' : ''
    if (held) text = text.slice(0, -1)
    const lines = text.split(/\r\n|\n|\r/)
    this.#rest = (lines.pop() ?? '') + held
    if (this.#rest.length > LINE_MAX) throw new RangeError('a line without an end')
    for (const line of lines) this.#line(line, events)
    return events
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === '') {
      if (this.#id !== undefined || this.#data !== undefined) {
        events.push({ id: this.#id, event: this.#event, data: this.#data })
      }
      this.#id = this.#data = undefined
      this.#event = 'message'
      return
    }
    const colon = line.indexOf(':')
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1))
    if (name === 'data') this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`
    else if (name === 'id') this.#id = value
    else if (name === 'event') this.#event = value
  }
}

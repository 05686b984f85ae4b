// Server-sent events out of text that comes in pieces (WHATWG HTML §9.2).

/** One event, or an `id` without data, which moves the cursor. */
export interface SseEvent {
  id?: string
  event: string
  data?: string
}

/** More text than this without an end of a line is no stream of ours: the largest message, in base64, and an envelope. */
const LINE_MAX = 96 << 20

/** Takes pieces; gives the events that are whole with each. */
export function sseParser(): (piece: string) => SseEvent[] {
  let rest = ''
  let next: SseEvent = { event: 'message' }
  return (piece) => {
    const events: SseEvent[] = []
    // A CR at the end may be half of a CRLF: it waits for what follows.
    const lines = (rest + piece).split(/\r?\n|\r(?!$)/)
    rest = lines.pop() ?? ''
    if (rest.length > LINE_MAX) throw new RangeError('a line without an end')
    for (const line of lines) {
      const [, field, value = ''] = /^(data|event|id)(?:: ?(.*))?$/s.exec(line) ?? []
      if (line === '') {
        if ((next.id ?? next.data) !== undefined) events.push(next)
        next = { event: 'message' }
      } else if (field) {
        const name = field as keyof SseEvent
        next[name] = name === 'data' && next.data !== undefined ? `${next.data}\n${value}` : value
      }
    }
    return events
  }
}

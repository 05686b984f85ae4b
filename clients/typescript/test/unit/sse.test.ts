// Server-sent events, wherever the pieces end and however lines do.

import { expect, test } from 'vitest'
import { type SseEvent, sseParser } from '../../src/core/sse.js'

const lines = [
  ': a comment',
  'id: 57@9f3c21d0',
  'event: task.progress',
  'data: {"text":"a line\u2028of it: all"}',
  '',
  'retry: 1000',
  'id:58',
  '',
  'data: one',
  'data',
  'data:  three',
  'datax: nothing',
  '',
  '',
  'event: nobody sees it without an id or data',
  '',
  'id: 59',
  'data: the end',
  '',
]
const want: SseEvent[] = [
  { id: '57@9f3c21d0', event: 'task.progress', data: '{"text":"a line\u2028of it: all"}' },
  { id: '58', event: 'message' },
  { event: 'message', data: 'one\n\n three' },
  { id: '59', event: 'message', data: 'the end' },
]

test.each([
  ['LF', '\n'],
  ['CR', '\r'],
  ['CRLF', '\r\n'],
])('events are the same in pieces of any length, lines end with %s', (_, end) => {
  // A comment behind it: whether a CR at the end is half of a CRLF shows with what follows.
  const text = `${lines.join(end)}${end}:`
  for (let length = 1; length <= text.length; length++) {
    const parse = sseParser()
    const events: SseEvent[] = []
    for (let at = 0; at < text.length; at += length) events.push(...parse(text.slice(at, at + length)))
    expect(events).toEqual(want)
  }
})

// Requests over the line, for the option `fetch` of the client: event streams, long polls, and single calls.

import { Lane } from './lane'
import type { Line } from './line'

/** A `fetch` that goes over `line`. */
export function fetchOver(line: Line): typeof fetch {
  return async (input, init = {}) => {
    const kind = new Headers(init.headers).get('accept') === 'text/event-stream' ? 'sse' : 'http'
    if (!line.lets(kind)) throw new TypeError('the line is cut, or lets no such request through')
    const lost = new AbortController()
    const release = line.hold(kind, () => lost.abort(new TypeError('the line was cut')))
    const signal = init.signal ? AbortSignal.any([init.signal, lost.signal]) : lost.signal
    const lane = new Lane(line)
    const over = (): void => {
      release()
      lane.close()
    }
    signal.addEventListener('abort', over)
    try {
      await passed(lane, typeof init.body === 'string' ? init.body.length : 0, signal)
      const response = await fetch(input, { ...init, signal })
      if (response.body === null) {
        over()
        return response
      }
      const { status, statusText, headers } = response
      return new Response(slowed(response.body, lane, signal, over), { status, statusText, headers })
    } catch (error) {
      over()
      throw error
    }
  }
}

/** The same bytes, as late as the line says: the next piece is read when the one before is there. */
function slowed(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  lane: Lane,
  signal: AbortSignal,
  over: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = body.getReader()
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read()
        if (done) {
          over()
          controller.close()
          return
        }
        await passed(lane, value.length, signal)
        controller.enqueue(value)
      } catch (error) {
        over()
        controller.error(error)
      }
    },
    cancel(reason) {
      over()
      return reader.cancel(reason)
    },
  })
}

function passed(lane: Lane, bytes: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (): void => reject(signal.reason)
    if (signal.aborted) return fail()
    signal.addEventListener('abort', fail, { once: true })
    const sent = lane.send(bytes, () => {
      signal.removeEventListener('abort', fail)
      resolve()
    })
    if (!sent) reject(new TypeError('too much is on its way'))
  })
}

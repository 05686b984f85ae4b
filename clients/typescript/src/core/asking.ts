// Request and reply: an event that names where its answer is to go, and the wait for that answer.
//
// - It listens before it asks, so that no answer is too fast; a connection that breaks in between loses nothing.

import { failure } from '../errors.js'
import type { Client, RequestOptions, TidingsEvent } from '../types.js'
import { uuidv7 } from './uuid.js'
import { late, within } from './wait.js'

/** The header that names where the answer is to go. */
const REPLY_TO = 'reply-to'

/** Asks a question; `from` is the topic of the answer where the options name none. */
export async function ask(
  client: Pick<Client, 'subscribe' | 'publish'>,
  from: string,
  topic: string,
  data: unknown,
  options: RequestOptions,
): Promise<TidingsEvent> {
  const { timeoutMs = 30_000, replyTo = from, correlation = uuidv7(), signal, headers, ...rest } = options
  const asked = async (limit: AbortSignal): Promise<TidingsEvent> => {
    const answers = client.subscribe(replyTo, { signal: limit })
    try {
      await answers.ready({ signal: limit })
      // An answer that may be among what is gone is not waited for in vain.
      answers.on('gap', () => void answers.unsubscribe())
      await client.publish(topic, data, {
        ...rest,
        ttlMs: timeoutMs,
        correlation,
        headers: { ...headers, [REPLY_TO]: replyTo },
        signal: limit,
      })
      for await (const event of answers) if (event.correlation === correlation) return event
    } finally {
      void answers.unsubscribe()
    }
    throw late(timeoutMs)
  }
  return within(timeoutMs, asked, signal).catch((error) => {
    throw error.code === 'timeout' ? failure('no_reply', error.message) : error
  })
}

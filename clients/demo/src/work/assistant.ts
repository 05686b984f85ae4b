// The assistant: answers questions of the chat word by word.
//
// - All windows share one durable subscription: each question goes to one of them.
// - A window that is closed in mid-sentence has not acknowledged the question. The next one reads how far it got.

import { TidingsError, type TidingsEvent } from 'tidings'
import { streamWriter } from 'tidings/helpers'
import { client } from '../client'
import { answerTo } from './answers'
import { whileWanted } from './switched'
import { wait } from './wait'

export const CHAT = 'rooms.demo'
/** The header of a message that wants an answer. */
export const ASK = { ask: 'assistant' } as const
/** Begins the correlation of an answer. */
export const ANSWER = 'answer-'
const WORD_MS = 70

async function answer(question: TidingsEvent, signal: AbortSignal): Promise<void> {
  const { text } = question.data as { text?: unknown }
  const writer = streamWriter(client, CHAT, {
    correlation: ANSWER + question.id,
    resume: question.attempts > 1,
    signal,
  })
  const written = await writer.resumed()
  const rest = answerTo(String(text)).slice(written.length)
  for (const word of rest.match(/\S+\s*|\s+/g) ?? []) {
    await wait(WORD_MS, signal)
    await writer.write(word)
  }
  await writer.end()
}

/** While this window was cut off another one has gone on: it is theirs to end. */
function unlessOvertaken(cause: unknown): void {
  if (!(cause instanceof TidingsError && cause.code === 'conflict')) throw cause
}

/** Answers as long as this window is to. */
export function startAssistant(): void {
  whileWanted(
    ({ assistant }) => assistant,
    (signal) => {
      client.subscribe(
        CHAT,
        {
          durable: 'demo-assistant',
          mode: 'shared',
          start: 'first',
          types: ['message'],
          headers: ASK,
          ackWaitMs: 60_000,
          signal,
        },
        (question) => answer(question, signal).catch(unlessOvertaken),
      )
    },
  )
}

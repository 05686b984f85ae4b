// Answers questions: the other side of `client.request`.

import { TidingsError } from '../errors.js'
import type { AnySchema, Client, DataOf, DurableOptions, Subscription, TidingsEvent } from '../types.js'
import { type AnyClient, anyClient, failure, messageOf, within } from './data.js'
import { Lifetime } from './watch.js'

/** The header that names the topic an answer goes to. */
export const REPLY_TO = 'reply-to'

/** What a question is answered with. */
export interface AnswerOptions {
  /** Its type. Default `reply`. */
  type?: string
}

/** Options of `reply`. */
export interface ReplyOptions extends AnswerOptions {
  /** Keep questions that come while nobody answers, under this name. Default: they are not answered. */
  durable?: string
  /** How the durable is shared and more; not without `durable`. */
  subscription?: Omit<DurableOptions, 'durable' | 'ack' | 'signal'>
  /** How many questions are answered at a time. Default 1: one after the other. */
  concurrency?: number
  /**
   * Where answers may go: filters. The one who asks chooses the topic and need not have the right to publish there, so
   * that it must be one where answers are all there is. Default `['replies.>']`.
   */
  replyTopics?: readonly string[]
  /** Told of answers that could not be published. */
  onError?: (error: TidingsError, question: TidingsEvent) => void
  /** Stops answering. */
  signal?: AbortSignal
}

/** Somebody who answers. */
export interface Responder {
  /** Resolved when questions are heard. */
  ready(): Promise<void>
  /** Stops; what is being answered is. */
  close(): Promise<void>
}

/**
 * Answers the questions on a filter with what `handler` gives. What it throws is answered with an event of type
 * `<type>.failed` and the data `{code, message}`. Questions of a durable are acknowledged when the answer is in the log.
 */
export function reply<S = AnySchema, F extends string = string>(
  client: Client<S>,
  filter: F,
  handler: (question: TidingsEvent<DataOf<S, F>>) => unknown,
  options: ReplyOptions = {},
): Responder {
  const any = anyClient(client)
  const life = new Lifetime(options.signal)
  const { durable, concurrency = 1 } = options
  const wish =
    durable === undefined
      ? {}
      : { maxInFlight: Math.max(1, concurrency), ...options.subscription, durable, ack: 'manual' as const }
  let running = 0
  let room: (() => void) | undefined
  const work = new Set<Promise<void>>()
  const one = async (question: TidingsEvent): Promise<void> => {
    try {
      await answer(any, question, () => handler(question as TidingsEvent<DataOf<S, F>>), options)
      if (durable !== undefined) await sub.ack(question)
    } catch (cause) {
      options.onError?.(failure(cause), question)
      if (durable !== undefined) await sub.nack(question).catch(() => undefined)
    } finally {
      running--
      room?.()
    }
  }
  const sub: Subscription = any.subscribe(filter, wish, async (question) => {
    // Left to whoever answers next.
    if (life.closed) return
    running++
    const answering = one(question)
    work.add(answering)
    void answering.then(() => work.delete(answering))
    // The next question is handed over when this returns.
    while (running >= concurrency) {
      await new Promise<void>((resolve) => {
        room = resolve
      })
    }
  })
  life.add(async () => {
    await Promise.allSettled(work)
    await sub.unsubscribe()
  })
  return { ready: () => sub.ready(), close: life.close }
}

/** Answers one question, where it wants an answer. Resolved when that is in the log. */
async function answer(
  client: AnyClient,
  question: TidingsEvent,
  handle: () => unknown,
  { type = 'reply', replyTopics }: Pick<ReplyOptions, 'type' | 'replyTopics'>,
): Promise<void> {
  let outcome: { type: string; data: unknown }
  try {
    outcome = { type, data: await handle() }
  } catch (cause) {
    outcome = {
      type: `${type}.failed`,
      data: { code: cause instanceof TidingsError ? cause.code : 'internal', message: messageOf(cause) },
    }
  }
  await answerWith(client, question, outcome, replyTopics)
}

/** Publishes an answer where the question wants one, if it may go there. */
export async function answerWith(
  client: AnyClient,
  question: TidingsEvent,
  outcome: { type: string; data: unknown },
  allowed: readonly string[] = ['replies.>'],
): Promise<void> {
  const to = question.headers?.[REPLY_TO]
  if (to === undefined) return
  if (!allowed.some((filter) => within(to, filter))) {
    throw new TidingsError('permission_denied', `the answer is wanted on ${to}, which is not among replyTopics`)
  }
  try {
    await client.publish(to, outcome.data, {
      type: outcome.type,
      // A question that comes again, after a crash, is answered once.
      id: question.id.length <= 190 ? `${question.id}:reply` : question.id,
      ...(question.correlation !== undefined && { correlation: question.correlation }),
    })
  } catch (error) {
    // It was answered, perhaps otherwise, before the crash.
    if (!(error instanceof TidingsError && error.code === 'conflict')) throw error
  }
}

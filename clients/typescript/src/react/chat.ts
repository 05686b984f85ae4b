// `useChat`: a conversation.

import { useMemo } from 'react'
import { type Chat, type ChatOptions, type ChatSnapshot, chat } from '../helpers/index.js'
import { useShared } from './shared.js'

/** What `useChat` gives. */
export interface ChatView<Data = unknown> extends ChatSnapshot<Data> {
  /** Sends a message and gives its id; its `state` says what becomes of it. */
  readonly send: Chat<Data>['send']
  /** Sends one that failed again. */
  readonly retry: (id: string) => void
  /** Takes one that failed off the list. */
  readonly discard: (id: string) => void
}

const before: ChatSnapshot<never> = { messages: [], caughtUp: false, error: undefined }

/** The conversation on `topic`: its messages in the order of the log, with what is not sent yet at the end. */
export function useChat<Data = unknown>(topic: string, options: Omit<ChatOptions, 'signal'> = {}): ChatView<Data> {
  const [snapshot, act] = useShared<ChatSnapshot<Data>, Chat<Data>>(
    JSON.stringify(['chat', topic, options]),
    (client) => chat(client, topic, { ...options, notifyMs: 0 }) as Chat<Data>,
    before,
  )
  // The same functions for as long as it is the same conversation.
  const does = useMemo(
    (): Pick<ChatView<Data>, 'send' | 'retry' | 'discard'> => ({
      send: (message, more) => act((helper) => helper.send(message, more)),
      retry: (id) => act((helper) => helper.retry(id)),
      discard: (id) => act((helper) => helper.discard(id)),
    }),
    [act],
  )
  return useMemo(() => ({ ...snapshot, ...does }), [snapshot, does])
}

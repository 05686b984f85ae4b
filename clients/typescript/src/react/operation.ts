// `useOperation` and `useStreamedMessage`: work in progress.

import { useMemo } from 'react'
import {
  type AssembledMessage,
  type OperationSnapshot,
  operation,
  type StreamedMessageOptions,
  streamedMessage,
  type Watched,
} from '../helpers/index.js'
import { newOperation, showOperation } from '../helpers/operation-state.js'
import type { Published } from '../types.js'
import { useTidings } from './context.js'
import { useShared } from './shared.js'

/** What `useOperation` gives. */
export interface OperationView extends OperationSnapshot {
  /** Asks whoever does it to stop; `cancelRequested` and then `status` say what comes of it. */
  readonly cancel: (reason?: string) => Promise<Published>
}

const unknown = showOperation(newOperation(''), 0, { caughtUp: false, error: undefined })

/** How the operation `id` stands. */
export function useOperation(id: string): OperationView {
  const client = useTidings()
  const [snapshot] = useShared<OperationSnapshot, Watched<OperationSnapshot>>(
    JSON.stringify(['operation', id]),
    (client) => operation(client, id).watch({ notifyMs: 0 }),
    unknown,
  )
  return useMemo(
    () => ({ ...snapshot, id, cancel: async (reason) => operation(client, id).cancel(reason) }),
    [client, snapshot, id],
  )
}

/** What `useStreamedMessage` gives. */
export interface StreamedMessageView {
  /** All that is there, from the beginning. */
  readonly text: string
  /** Whether that is all of it. */
  readonly complete: boolean
  /** Why it will not be complete. */
  readonly error: AssembledMessage['error']
}

const none: StreamedMessageView = { text: '', complete: false, error: undefined }

/** A message as it is being written: the chunks of `correlation` on `topic`. `correlation` `null` is none. */
export function useStreamedMessage(
  topic: string,
  correlation: string | null,
  options: Omit<StreamedMessageOptions, 'signal'> = {},
): StreamedMessageView {
  const [message] = useShared<AssembledMessage | undefined, Watched<AssembledMessage | undefined>>(
    correlation === null ? null : JSON.stringify(['message', topic, correlation, options]),
    (client) => streamedMessage(client, topic, correlation ?? '', { ...options, notifyMs: 0 }),
    undefined,
  )
  return message ?? none
}

// `usePresence` and `useTyping`: who is there, and what they are doing.

import { useMemo } from 'react'
import type { TidingsError } from '../errors.js'
import {
  listed,
  type MembersSnapshot,
  members,
  type Typing,
  type TypingOptions,
  type Typist,
  typing,
  type Watched,
} from '../helpers/index.js'
import { useShared } from './shared.js'

const nobody: MembersSnapshot<never> = { members: [], ready: false, error: undefined }
const silent: readonly Typist[] = []

/**
 * Who is listed on `topic`. With `data` (1 KiB of JSON; `{}` will do) this client is listed there, too, as long as the
 * component is mounted; that takes a socket or a stream. Others see another `data` as a leave and a join. `topic` `null` gives nobody.
 */
export function usePresence<Data = unknown>(topic: string | null, data?: unknown): MembersSnapshot<Data> {
  const [snapshot] = useShared<MembersSnapshot<Data>, Watched<MembersSnapshot<Data>>>(
    topic === null ? null : JSON.stringify(['presence', topic]),
    (client) => members<Data>(client, topic ?? '', { notifyMs: 0 }),
    nobody,
  )
  // Apart from the list, which stays as it is when the data are others.
  const [refused] = useShared<TidingsError | undefined, Watched<TidingsError | undefined>>(
    topic === null || data === undefined ? null : JSON.stringify(['listed', topic, data]),
    (client) => listed(client, topic ?? '', data),
    undefined,
  )
  return useMemo(() => (refused && !snapshot.error ? { ...snapshot, error: refused } : snapshot), [snapshot, refused])
}

/** What `useTyping` gives. */
export interface TypingView {
  /** Who else is typing. */
  readonly typists: readonly Typist[]
  /** We are: call it with every key that is pressed. */
  readonly typing: () => void
  /** We are not any more. It is said by itself after a while, too. */
  readonly stopped: () => void
}

/** Who is typing on `topic`. */
export function useTyping(topic: string | null, options: Omit<TypingOptions, 'signal'> = {}): TypingView {
  const [typists, act] = useShared<readonly Typist[], Typing>(
    topic === null ? null : JSON.stringify(['typing', topic, options]),
    (client) => typing(client, topic ?? '', { ...options, notifyMs: 0 }),
    silent,
  )
  return useMemo(
    () => ({
      typists,
      typing: () => act((helper) => helper.typing()),
      stopped: () => act((helper) => helper.stopped()),
    }),
    [typists, act],
  )
}

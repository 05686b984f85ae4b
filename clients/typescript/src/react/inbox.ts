// `useInbox` and `useUnread`: the notifications of a user.

import { useMemo } from 'react'
import { type Inbox, type InboxOptions, type InboxSnapshot, inbox } from '../helpers/index.js'
import { useShared } from './shared.js'

/** What `useInbox` gives. */
export interface InboxView<Data = unknown> extends InboxSnapshot<Data> {
  /** This one, or these, are read. Rejected with what the broker refuses; they are shown as unread again then. */
  readonly markRead: (offsets: number | readonly number[]) => Promise<void>
  /** All that is here is read. */
  readonly markAllRead: () => Promise<void>
}

const before: InboxSnapshot<never> = { items: [], unread: 0, caughtUp: false, error: undefined }

function useBox<Data>(name: string | null, options: InboxOptions) {
  return useShared<InboxSnapshot<Data>, Inbox<Data>>(
    name === null ? null : JSON.stringify(['inbox', name, options]),
    (client) => inbox<Data>(client, name ?? '', { ...options, notifyMs: 0 }),
    before,
  )
}

/** The inbox `name`, newest first. Components that use the same one share it. */
export function useInbox<Data = unknown>(
  name: string | null,
  options: Omit<InboxOptions, 'signal'> = {},
): InboxView<Data> {
  const [snapshot, act] = useBox<Data>(name, options)
  return useMemo(
    () => ({
      ...snapshot,
      markRead: async (offsets) => act((box) => box.markRead(offsets)),
      markAllRead: async () => act((box) => box.markAllRead()),
    }),
    [snapshot, act],
  )
}

/** How many notifications of the inbox are not read: for a badge. With the same options it shares that of `useInbox`. */
export function useUnread(name: string | null, options: Omit<InboxOptions, 'signal'> = {}): number {
  return useBox(name, options)[0].unread
}

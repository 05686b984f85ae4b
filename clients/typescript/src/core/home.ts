import type { Gap, SavedCursor, Subscription, TidingsEvent } from '../types.js'

/** What a subscription needs of its client. */
export interface Home {
  isOwn(id: string): boolean
  readonly echo: boolean
  event(event: TidingsEvent, subscription: Subscription): void
  gap(gap: Gap, subscription: Subscription): void
  /** What failed, or what a listener threw. */
  failed(cause: unknown): void
  /** The place has moved, for the store of cursors. */
  moved(key: string, saved: SavedCursor): void
  closed(subscription: Subscription): void
}

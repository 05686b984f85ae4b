import type { CursorStore, SavedCursor } from '../types.js'
import { alarm } from './wait.js'

/** A key is saved at most this often. */
const EVERY_MS = 250

/** Saves cursors, the newest of each key, not more often than it is worth. */
export interface Saver {
  _get(key: string): Promise<SavedCursor | undefined>
  _set(key: string, saved: SavedCursor): void
  _flush(): Promise<void>
}

export function createSaver(store: CursorStore, failed: (error: unknown) => void): Saver {
  const dirty = new Map<string, SavedCursor>()
  const tried = <T>(act: () => T | Promise<T>): Promise<T | undefined> =>
    (async () => act())().catch((error) => {
      failed(error)
      return undefined
    })
  const flush = async (): Promise<void> => {
    timer._clear()
    const these = [...dirty]
    dirty.clear()
    // All are begun before the first is waited for: a page that goes has no time for more.
    await Promise.all(these.map(([key, saved]) => tried(() => store.set(key, saved))))
  }
  const timer = alarm(() => void flush())
  return {
    _get: (key) => tried(() => dirty.get(key) ?? store.get(key)),
    _set(key, saved) {
      dirty.set(key, saved)
      if (!timer._on()) timer._set(EVERY_MS)
    },
    _flush: flush,
  }
}

import { isOffset, isWords } from './core/check.js'
import type { CursorStore, SavedCursor } from './types.js'

/** Keeps cursors as long as the client lives. */
export function memoryCursors(): CursorStore {
  // All that a store is asked, a map does.
  return new Map<string, SavedCursor>() as unknown as CursorStore
}

/**
 * Keeps cursors in `localStorage`, under `prefix` and the key of the subscription (default `tidings:cursor:`). Where
 * there is none, or it refuses, they live as long as the client.
 */
export function localCursors(prefix = 'tidings:cursor:'): CursorStore {
  const memory = memoryCursors()
  return {
    get(key) {
      try {
        const saved: unknown = JSON.parse(localStorage.getItem(prefix + key) ?? 'null')
        if (isWords(saved) && typeof saved.log === 'string' && (saved.cursor === 0 || isOffset(saved.cursor))) {
          return { log: saved.log, cursor: saved.cursor }
        }
      } catch {}
      return memory.get(key)
    },
    set(key, saved) {
      try {
        localStorage.setItem(prefix + key, JSON.stringify(saved))
      } catch {
        void memory.set(key, saved)
      }
    },
  }
}

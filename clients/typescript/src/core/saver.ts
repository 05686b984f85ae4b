import type { CursorStore, SavedCursor } from '../types.js'

/** A key is saved at most this often. */
const EVERY_MS = 250

/** Saves cursors, the newest of each key, not more often than it is worth. */
export class Saver {
  readonly #store: CursorStore
  readonly #failed: (error: unknown) => void
  readonly #dirty = new Map<string, SavedCursor>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(store: CursorStore, failed: (error: unknown) => void) {
    this.#store = store
    this.#failed = failed
  }

  async get(key: string): Promise<SavedCursor | undefined> {
    try {
      return this.#dirty.get(key) ?? (await this.#store.get(key))
    } catch (error) {
      this.#failed(error)
      return undefined
    }
  }

  set(key: string, saved: SavedCursor): void {
    this.#dirty.set(key, saved)
    this.#timer ??= setTimeout(() => void this.flush(), EVERY_MS)
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const dirty = [...this.#dirty]
    this.#dirty.clear()
    // All are begun before the first is waited for: a page that goes has no time for more.
    await Promise.all(
      dirty.map(async ([key, saved]) => {
        try {
          await this.#store.set(key, saved)
        } catch (error) {
          this.#failed(error)
        }
      }),
    )
  }
}

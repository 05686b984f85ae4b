/**
 * Listeners by name. What one throws is told to `failed` and keeps nobody else from being told. What a listener of
 * `error` throws goes to the host, as an error that nobody caught: telling it to that listener again would never end.
 */
export class Emitter<Events extends { [K in keyof Events]: unknown[] }> {
  readonly #listeners = new Map<keyof Events, Set<(args: unknown[]) => void>>()
  readonly #failed: (error: unknown) => void

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed
  }

  on<K extends keyof Events>(name: K, listener: (...args: Events[K]) => void): () => void {
    // A wrapper of its own, so that a function that is registered twice is told twice and removed once.
    const own = (args: unknown[]): void => listener(...(args as Events[K]))
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners.add(own))
    return () => void listeners.delete(own)
  }

  emit<K extends keyof Events>(name: K, ...args: Events[K]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(args)
      } catch (error) {
        if (name !== 'error') this.#failed(error)
        else
          queueMicrotask(() => {
            throw error
          })
      }
    }
  }

  clear(): void {
    this.#listeners.clear()
  }
}

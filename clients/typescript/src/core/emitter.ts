/** Listeners by name. */
export interface Emitter<Events extends { [K in keyof Events]: unknown[] }> {
  _on<K extends keyof Events>(name: K, listener: (...args: Events[K]) => void): () => void
  _emit<K extends keyof Events>(name: K, ...args: Events[K]): void
  _clear(): void
}

/**
 * What a listener throws is told to `failed` and keeps nobody else from being told. What a listener of `error` throws
 * goes to the host, as an error that nobody caught: telling it to that listener again would never end.
 */
export function createEmitter<Events extends { [K in keyof Events]: unknown[] }>(
  failed: (cause: unknown) => void,
): Emitter<Events> {
  const listeners = new Map<keyof Events, Set<(args: unknown[]) => void>>()
  return {
    _on(name, listener) {
      // A wrapper of its own, so that a function that is registered twice is told twice and removed once.
      const own = (args: unknown[]): void => listener(...(args as Events[typeof name]))
      const those = listeners.get(name) ?? new Set()
      listeners.set(name, those.add(own))
      return () => void those.delete(own)
    },
    _emit(name, ...args) {
      for (const listener of [...(listeners.get(name) ?? [])]) {
        try {
          listener(args)
        } catch (error) {
          if (name !== 'error') failed(error)
          else
            queueMicrotask(() => {
              throw error
            })
        }
      }
    },
    _clear: () => listeners.clear(),
  }
}

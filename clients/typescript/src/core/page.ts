/**
 * Listens to the page, where there is one; until the signal is aborted. `wake`: the network is back, or the
 * page is looked at again. `hide`: the page goes, perhaps for good. `show`: it is back from the back/forward cache.
 */
export function watchPage(signal: AbortSignal, wake: () => void, hide: () => void, show: () => void): void {
  const page = globalThis as unknown as Partial<EventTarget> & { document?: Document }
  const on = (name: string, act: (event: Event) => unknown): void => page.addEventListener?.(name, act, { signal })
  on('online', wake)
  on('pagehide', hide)
  on('pageshow', (event) => (event as PageTransitionEvent).persisted && show())
  // It bubbles up from the document.
  on('visibilitychange', () => page.document?.visibilityState === 'visible' && wake())
}

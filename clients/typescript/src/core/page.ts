/** What a page tells a client. All of it is left out where there is no page. */
export interface PageHooks {
  /** The network is back, or the page is looked at again. */
  _wake(): void
  /** The page goes, perhaps for good. */
  _hide(): void
  /** The page is back from the back/forward cache. */
  _show(): void
}

/** Listens to the page; the function that is returned stops it. */
export function watchPage({ _wake: wake, _hide: hide, _show: show }: PageHooks): () => void {
  const page = globalThis as unknown as Partial<EventTarget> & { document?: Document }
  const stop = new AbortController()
  const { signal } = stop
  const on = (name: string, act: (event: Event) => unknown): void => page.addEventListener?.(name, act, { signal })
  on('online', wake)
  on('pagehide', hide)
  on('pageshow', (event) => (event as PageTransitionEvent).persisted && show())
  // It bubbles up from the document.
  on('visibilitychange', () => page.document?.visibilityState === 'visible' && wake())
  return () => stop.abort()
}

/** What a page tells a client. All of it is left out where there is no page. */
export interface PageHooks {
  /** The network is back, or the page is looked at again. */
  wake(): void
  /** The page goes, perhaps for good. */
  hide(): void
  /** The page is back from the back/forward cache. */
  show(): void
}

/** Listens to the page; the function that is returned stops it. */
export function watchPage({ wake, hide, show }: PageHooks): () => void {
  const page = globalThis as unknown as EventTarget & { document?: Document }
  const { document } = page
  const listeners: [EventTarget | undefined, string, (event: Event) => unknown][] = [
    [page, 'online', wake],
    [page, 'pagehide', hide],
    [page, 'pageshow', (event) => (event as PageTransitionEvent).persisted && show()],
    [document, 'visibilitychange', () => document?.visibilityState === 'visible' && wake()],
  ]
  const all = (what: 'addEventListener' | 'removeEventListener'): void => {
    for (const [on, name, listener] of listeners) on?.[what]?.(name, listener)
  }
  all('addEventListener')
  return () => all('removeEventListener')
}

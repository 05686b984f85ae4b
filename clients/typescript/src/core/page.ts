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
  const page = globalThis as unknown as Partial<EventTarget> & { document?: Document }
  const listeners: [string, (event: Event) => unknown][] = [
    ['online', wake],
    ['pagehide', hide],
    ['pageshow', (event) => (event as PageTransitionEvent).persisted && show()],
    // It bubbles up from the document.
    ['visibilitychange', () => page.document?.visibilityState === 'visible' && wake()],
  ]
  const all = (what: 'addEventListener' | 'removeEventListener'): void => {
    for (const listener of listeners) page[what]?.(...listener)
  }
  all('addEventListener')
  return () => all('removeEventListener')
}

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
export function watchPage(hooks: PageHooks): () => void {
  const target = globalThis as Partial<Pick<Window, 'addEventListener' | 'removeEventListener' | 'document'>>
  if (!target.addEventListener) return () => {}
  const visible = (): void => {
    if (target.document?.visibilityState === 'visible') hooks.wake()
  }
  const shown = (event: PageTransitionEvent): void => {
    if (event.persisted) hooks.show()
  }
  const listeners: [EventTarget | undefined, string, (event: never) => void][] = [
    [globalThis as unknown as EventTarget, 'online', () => hooks.wake()],
    [globalThis as unknown as EventTarget, 'pagehide', () => hooks.hide()],
    [globalThis as unknown as EventTarget, 'pageshow', shown],
    [target.document, 'visibilitychange', visible],
  ]
  for (const [on, name, listener] of listeners) on?.addEventListener(name, listener as EventListener)
  return () => {
    for (const [on, name, listener] of listeners) on?.removeEventListener(name, listener as EventListener)
  }
}

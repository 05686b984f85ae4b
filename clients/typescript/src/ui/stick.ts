// Sticking to the bottom of what scrolls.

import { type RefObject, useEffect, useLayoutEffect, useRef, useState } from 'react'

// On a server there is no layout, and React 18 complains.
const useBeforePaint = typeof document === 'undefined' ? useEffect : useLayoutEffect

/** How near to the bottom counts as there, in pixels: zoomed pages end on fractions. */
const NEAR = 24

/**
 * Keeps an element scrolled to its bottom whenever `content` changes or it gets another size, until the reader scrolls
 * up; `jump` leads back.
 */
export function useStickToBottom(content: unknown): {
  log: RefObject<HTMLDivElement | null>
  stuck: boolean
  jump: () => void
} {
  const log = useRef<HTMLDivElement>(null)
  const [stuck, setStuck] = useState(true)
  // Asked for anew with every content, and by the observer: it is the position that counts, not the last render.
  const wanted = useRef(true)
  const jump = () => {
    wanted.current = true
    setStuck(true)
    toBottom(log.current)
  }
  useBeforePaint(() => {
    if (wanted.current) toBottom(log.current)
  }, [content])
  useEffect(() => {
    const element = log.current
    if (!element) return
    const onScroll = () => {
      const away = element.scrollHeight - element.scrollTop - element.clientHeight
      wanted.current = away <= NEAR
      setStuck(wanted.current)
    }
    const onResize = () => {
      if (wanted.current) toBottom(element)
    }
    element.addEventListener('scroll', onScroll, { passive: true })
    const observer = typeof ResizeObserver === 'function' ? new ResizeObserver(onResize) : undefined
    observer?.observe(element)
    for (const child of element.children) observer?.observe(child)
    return () => {
      element.removeEventListener('scroll', onScroll)
      observer?.disconnect()
    }
  }, [])
  return { log, stuck, jump }
}

function toBottom(element: HTMLElement | null): void {
  if (element) element.scrollTop = element.scrollHeight
}

// What all parts have in common.

import { type CSSProperties, createElement, type ReactElement, useEffect, useState } from 'react'
import type { TidingsError } from '../errors.js'
import type { Labels } from './labels.js'

/** What every part takes. */
export interface PartProps {
  /** Words in the place of those of the nearest `LabelsProvider`. */
  labels?: Partial<Labels> | undefined
  /** Added to the class of the part. */
  className?: string | undefined
  /** The `id` of its outermost element. */
  id?: string | undefined
  /** Styles of its outermost element. */
  style?: CSSProperties | undefined
}

/** The attributes of a part's outermost element. */
export function outer(name: string, props: PartProps): { className: string; id?: string; style?: CSSProperties } {
  const { className, id, style } = props
  return {
    className: `tidings tidings-${name}${className ? ` ${className}` : ''}`,
    ...(id === undefined ? {} : { id }),
    ...(style === undefined ? {} : { style }),
  }
}

/** Why nothing, or nothing more, will come; where nothing is wrong, nothing. */
export function refused(error: TidingsError | undefined, say: Labels): ReactElement | undefined {
  return error && createElement('p', { className: 'tidings-refused', role: 'alert' }, say.failure(error))
}

/** Seconds until a moment, counted down; `undefined` where there is none or it has passed. */
export function useCountdown(at: number | undefined): number | undefined {
  const [now, setNow] = useState(0)
  useEffect(() => {
    if (at === undefined) return
    const tick = () => setNow(Date.now())
    tick()
    const timer = setInterval(tick, 1_000)
    return () => clearInterval(timer)
  }, [at])
  if (at === undefined || now === 0 || at <= now) return undefined
  return Math.ceil((at - now) / 1_000)
}

/** Whether something has been so for a while: what passes quickly is not worth a word. */
export function useLasting(so: boolean, forMs: number): boolean {
  const [lasting, setLasting] = useState(false)
  useEffect(() => {
    if (!so) return
    const timer = setTimeout(setLasting, forMs, true)
    return () => {
      clearTimeout(timer)
      setLasting(false)
    }
  }, [so, forMs])
  return so && lasting
}

// `usePublish`: publishing, with what a button needs to know of it.

import { useCallback, useRef, useState } from 'react'
import { type TidingsError, toError } from '../errors.js'
import type { Published, PublishOptions } from '../types.js'
import { useTidings } from './context.js'

/** What `usePublish` gives. */
export interface PublishView {
  /**
   * As `client.publish`. The promise may be dropped: what the broker refuses is in `error`, too.
   */
  readonly publish: (topic: string, data?: unknown, options?: PublishOptions) => Promise<Published>
  /** How many publishes of this component wait for their answer. */
  readonly pending: number
  /** Why the last one was refused; `undefined` once another one has arrived. */
  readonly error: TidingsError | undefined
}

/** Publishes, and tells how it goes. */
export function usePublish(): PublishView {
  const client = useTidings()
  const [pending, setPending] = useState(0)
  const [error, setError] = useState<TidingsError>()
  const number = useRef(0)
  const publish = useCallback(
    (topic: string, data?: unknown, options?: PublishOptions) => {
      number.current += 1
      const mine = number.current
      setPending((count) => count + 1)
      const settle = (refusal?: TidingsError) => {
        setPending((count) => count - 1)
        if (mine === number.current) setError(refusal)
      }
      const published = client.publish(topic, data, options)
      published.then(
        () => settle(),
        (refusal: unknown) => settle(toError(refusal, 'protocol', String(refusal))),
      )
      return published
    },
    [client],
  )
  return { publish, pending, error }
}

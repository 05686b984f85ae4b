// How the connection stands, and what waits for it.

import type { ReactElement } from 'react'
import { useConnection, useOutbox, useTidings } from '../react/index.js'
import { useLabels } from './labels.js'
import { outer, type PartProps, refused, useCountdown, useLasting } from './part.js'
import { Kept } from './press.js'

/**
 * The connection in words: state, transport, latency, and when the next try begins, with a button to try now. Only the
 * state is a live region, so that a screen reader hears changes and no countdown.
 */
export function ConnectionStatus(props: PartProps): ReactElement {
  const client = useTidings()
  const { state, transport, latencyMs, nextRetryAt, error } = useConnection()
  const say = useLabels(props.labels)
  const seconds = useCountdown(nextRetryAt)
  const retriable = state === 'disconnected' || nextRetryAt !== undefined
  return (
    <Kept {...outer('connection', props)} data-state={state} data-transport={transport ?? 'none'}>
      <span className="tidings-dot" aria-hidden="true" />
      <span role="status">{say.state(state)}</span>
      {transport && <span className="tidings-quiet">{say.transport(transport)}</span>}
      {transport && latencyMs !== undefined && <span className="tidings-quiet">{say.latency(latencyMs)}</span>}
      {seconds !== undefined && <span className="tidings-quiet">{say.retryIn(seconds)}</span>}
      {retriable && (
        <button type="button" onClick={() => client.connect()}>
          {say.retryNow}
        </button>
      )}
      {/* Why it does not go on by itself. A line that is cut needs no reason. */}
      {state !== 'connected' && refused(error?.retryable ? undefined : error, say)}
    </Kept>
  )
}

/** What `OutboxBadge` takes. */
export interface OutboxBadgeProps extends PartProps {
  /** How long events may wait on a good connection before it is worth a word. Default 1,000. */
  afterMs?: number
}

/** How many events wait to be sent; nothing while none do, or only for a moment. */
export function OutboxBadge(props: OutboxBadgeProps): ReactElement {
  const { events, state } = useOutbox()
  const say = useLabels(props.labels)
  const late = useLasting(events > 0, props.afterMs ?? 1_000)
  const shown = events > 0 && (late || state !== 'connected')
  return (
    <span {...outer('outbox', props)} role="status" data-state={shown ? 'waiting' : 'empty'}>
      {shown && say.waiting(events)}
    </span>
  )
}

// Notifications that come up and go: of events, and of the connection.
//
// - Two live regions: what is urgent interrupts a screen reader and stays until somebody dismisses it; all else waits
//   for a pause and goes by itself. While the pointer or the focus is on them nothing goes.
// - At most `max` are shown. Where more come, those that are not urgent go first, the oldest of them before the others.

import { type KeyboardEvent, type ReactElement, useCallback, useEffect, useRef, useState } from 'react'
import { inNextFrame } from '../react/frame.js'
import { useConnection, useSubscription } from '../react/index.js'
import type { Priority, TidingsEvent } from '../types.js'
import { type Labels, useLabels } from './labels.js'
import { type ActionProps, NotificationText, notificationOf } from './notification.js'
import { outer, type PartProps } from './part.js'

/** What `Toaster` takes. */
export interface ToasterProps extends PartProps, ActionProps {
  /** Whose events are shown: topics or filters. Without it only the connection is spoken of. */
  filter?: string | readonly string[] | null
  /** The lowest priority that is shown. Default `normal`. */
  minPriority?: Priority
  /** How long a toast that is not urgent stays. Default 6,000. */
  durationMs?: number
  /** How many are shown at once. Default 5. */
  max?: number
  /** Whether to tell of lost and restored connections. Default `true`. */
  connection?: boolean
  /** How long a connection must be lost before it is told. Default 1,000. */
  lostAfterMs?: number
  /** The key that brings the focus here. Default `F8`. */
  hotkey?: string
}

interface Toast {
  readonly id: string
  /** Absent: it is about the connection. */
  readonly event?: TidingsEvent
  readonly connection?: 'lost' | 'restored'
}

/** What stays until it is dismissed, or over. */
const lasts = (toast: Toast): boolean => isUrgent(toast) || toast.connection === 'lost'
const isUrgent = ({ event }: Toast): boolean => event?.priority === 'urgent'

/** Shows events as they come, and when the connection is lost and there again. Put one on a page. */
export function Toaster(props: ToasterProps): ReactElement {
  const { filter = null, minPriority = 'normal', durationMs = 6_000, max = 5, hotkey = 'F8' } = props
  const say = useLabels(props.labels)
  const { toasts, add, remove } = useToasts(max)
  const [paused, setPaused] = useState(false)
  const region = useRef<HTMLElement>(null)
  /** What had the focus before the key brought it here. */
  const before = useRef<Element>(null)
  const leave = () => {
    if (before.current instanceof HTMLElement) before.current.focus()
    before.current = null
    setPaused(false)
  }
  const dismiss = (id: string) => {
    remove(id)
    // The button that had the focus is gone: stay near it.
    if (region.current?.contains(document.activeElement)) region.current.focus()
    if (toasts.every((toast) => toast.id === id)) leave()
  }

  useSubscription(filter, { minPriority }, (event) => add({ id: `${event.offset}`, event }))
  useConnectionToasts(props.connection ?? true, props.lostAfterMs ?? 1_000, add)
  useEffect(() => {
    const listen = ({ key }: { key: string }) => {
      if (key !== hotkey || !region.current) return
      if (!region.current.contains(document.activeElement)) before.current = document.activeElement
      region.current.focus()
    }
    addEventListener('keydown', listen)
    return () => removeEventListener('keydown', listen)
  }, [hotkey])

  const show = (toast: Toast) => (
    <ToastItem
      key={toast.id}
      toast={toast}
      labels={say}
      durationMs={paused ? Infinity : durationMs}
      actionTopics={props.actionTopics}
      onDismiss={dismiss}
    />
  )
  return (
    <section
      {...outer('toaster', props)}
      ref={region}
      tabIndex={-1}
      aria-label={say.notifications}
      onMouseEnter={() => setPaused(true)}
      onMouseLeave={() => setPaused(false)}
      onFocus={() => setPaused(true)}
      onBlur={() => setPaused(false)}
      onKeyDown={({ key, target, currentTarget }) => {
        if (key === 'Escape' && target === currentTarget) leave()
      }}
    >
      <div role="alert">{toasts.filter(isUrgent).map(show)}</div>
      <div role="status" aria-atomic="false">
        {toasts.filter((toast) => !isUrgent(toast)).map(show)}
      </div>
    </section>
  )
}

interface ToastProps extends ActionProps {
  toast: Toast
  labels: Labels
  durationMs: number
  onDismiss: (id: string) => void
}

function ToastItem(props: ToastProps): ReactElement {
  const { toast, labels: say, durationMs, onDismiss } = props
  const { id, event, connection } = toast
  const stays = lasts(toast) || durationMs === Infinity
  const latest = useRef(onDismiss)
  useEffect(() => {
    latest.current = onDismiss
  })
  useEffect(() => {
    if (stays) return
    const timer = setTimeout(() => latest.current(id), durationMs)
    return () => clearTimeout(timer)
  }, [stays, durationMs, id])
  const onKeyDown = ({ key }: KeyboardEvent) => {
    if (key === 'Escape') onDismiss(id)
  }
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Escape comes from the buttons inside
    <div
      className="tidings-toast"
      data-priority={event?.priority ?? 'normal'}
      data-level={event ? notificationOf(event).level : connection === 'lost' ? 'warning' : 'success'}
      data-state={connection ?? 'event'}
      onKeyDown={onKeyDown}
    >
      {event ? (
        <NotificationText event={event} labels={say} actionTopics={props.actionTopics} />
      ) : (
        <div className="tidings-text">
          <strong>{connection === 'lost' ? say.connectionLost : say.connectionRestored}</strong>
          {connection === 'lost' && <p>{say.connectionLostHint}</p>}
        </div>
      )}
      <button type="button" className="tidings-close" aria-label={say.dismiss} onClick={() => onDismiss(id)}>
        <span aria-hidden="true">×</span>
      </button>
    </div>
  )
}

/** Toasts that are shown; what comes within a frame comes at once. */
function useToasts(max: number) {
  const [toasts, setToasts] = useState<readonly Toast[]>([])
  const coming = useRef<readonly Toast[]>([])
  const flush = useCallback(() => {
    const more = coming.current
    coming.current = []
    setToasts((before) => bounded(before, more, max))
  }, [max])
  const add = useCallback(
    (toast: Toast) => {
      coming.current = bounded(coming.current, [toast], max)
      inNextFrame(flush)
    },
    [flush, max],
  )
  const remove = (id: string) => setToasts((before) => before.filter((toast) => toast.id !== id))
  return { toasts, add, remove }
}

/** A connection that was lost is told until it is back, which is told in its place. The first connection is no news. */
function useConnectionToasts(wanted: boolean, afterMs: number, add: (toast: Toast) => void): void {
  const { state, error } = useConnection()
  // Also where it has ended for good; not where the program has ended it.
  const lost = state === 'reconnecting' || (state === 'disconnected' && error !== undefined)
  const told = useRef(false)
  useEffect(() => {
    if (!wanted) return
    if (state === 'connected') {
      if (told.current) add({ id: 'connection', connection: 'restored' })
      told.current = false
      return
    }
    if (!lost || told.current) return
    const timer = setTimeout(() => {
      told.current = true
      add({ id: 'connection', connection: 'lost' })
    }, afterMs)
    return () => clearTimeout(timer)
  }, [wanted, state, lost, afterMs, add])
}

function bounded(before: readonly Toast[], more: readonly Toast[], max: number): readonly Toast[] {
  const ids = new Set(more.map(({ id }) => id))
  const all = [...before.filter(({ id }) => !ids.has(id)), ...more]
  let over = all.length - Math.max(1, max)
  // What lasts goes only where there is nothing else.
  const rest = all.filter((toast) => lasts(toast) || over-- <= 0)
  return rest.slice(-Math.max(1, max))
}

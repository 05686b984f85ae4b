// The notification centre: a button that says how much is unread, and a panel with all of it.

import { type KeyboardEvent, type MouseEvent, type ReactElement, useEffect, useId, useRef, useState } from 'react'
import { type InboxView, useInbox } from '../react/index.js'
import { type Labels, useLabels } from './labels.js'
import { type ActionProps, NotificationText, notificationOf } from './notification.js'
import { outer, type PartProps, refused } from './part.js'

/** How near to the edge of the window a panel may come, in pixels. */
const EDGE = 8

/** What `NotificationCenter` takes. */
export interface NotificationCenterProps extends PartProps, ActionProps {
  /** The name of the inbox. */
  name: string
  /** Whether the panel is open at first. Default `false`. */
  defaultOpen?: boolean
  /** Options of `useInbox`. */
  options?: Parameters<typeof useInbox>[1]
}

/**
 * The inbox of a user behind a button. Arrow keys go from one notification to the next, Escape closes the panel and
 * gives the focus back to the button.
 */
export function NotificationCenter(props: NotificationCenterProps): ReactElement {
  const box = useInbox(props.name, props.options)
  const say = useLabels(props.labels)
  const [open, setOpen] = useState(props.defaultOpen ?? false)
  const root = useRef<HTMLDivElement>(null)
  const button = useRef<HTMLButtonElement>(null)
  const panel = useId()
  useEffect(() => {
    if (!open) return
    const outside = ({ target }: Event) => {
      if (target instanceof Node && !root.current?.contains(target)) setOpen(false)
    }
    document.addEventListener('pointerdown', outside)
    return () => document.removeEventListener('pointerdown', outside)
  }, [open])
  // With every notification: the button grows with what it counts.
  useEffect(() => {
    if (!open) return
    const keep = () => keepInSight(root.current?.querySelector<HTMLElement>('.tidings-panel'))
    keep()
    addEventListener('resize', keep)
    return () => removeEventListener('resize', keep)
  }, [open, box])
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Escape' && open) {
      setOpen(false)
      button.current?.focus()
    }
    moveFocus(event, root.current)
  }
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys come from what is inside
    <div {...outer('center', props)} ref={root} data-state={open ? 'open' : 'closed'} onKeyDown={onKeyDown}>
      <button type="button" ref={button} aria-expanded={open} aria-controls={panel} onClick={() => setOpen(!open)}>
        {say.notifications}
        {box.unread > 0 && (
          <span className="tidings-badge" aria-hidden="true">
            {box.unread}
          </span>
        )}
      </button>
      <span className="tidings-hidden" role="status">
        {(box.caughtUp || box.unread > 0) && say.unread(box.unread)}
      </span>
      {/* biome-ignore lint/a11y/useSemanticElements: it is no part of a form */}
      <div
        className="tidings-panel"
        role="group"
        id={panel}
        tabIndex={-1}
        hidden={!open}
        aria-label={say.notifications}
      >
        {open && <Items box={box} labels={say} actionTopics={props.actionTopics} />}
      </div>
    </div>
  )
}

function Items(props: { box: InboxView; labels: Labels } & ActionProps): ReactElement {
  const { box, labels: say, actionTopics } = props
  const why = refused(box.error, say)
  if (box.items.length === 0)
    return why ?? <p className="tidings-quiet">{box.caughtUp ? say.noNotifications : say.loading}</p>
  return (
    <>
      {why}
      {box.unread > 0 && (
        <button type="button" onClick={(event) => act(event, box.markAllRead())}>
          {say.markAllRead}
        </button>
      )}
      <ul>
        {box.items.map((item) => (
          <li
            key={item.offset}
            tabIndex={-1}
            data-state={item.read ? 'read' : 'unread'}
            data-priority={item.priority}
            data-level={notificationOf(item).level}
          >
            <div className="tidings-text">
              <NotificationText event={item} labels={say} actionTopics={actionTopics} />
              <small className="tidings-quiet">
                <time dateTime={item.time}>{say.time(Date.parse(item.time))}</time>
              </small>
            </div>
            {!item.read && (
              <button type="button" onClick={(event) => act(event, box.markRead(item.offset))}>
                {say.markRead}
              </button>
            )}
          </li>
        ))}
      </ul>
    </>
  )
}

/** A refusal shows itself: what could not be marked is unread again. */
function act({ currentTarget }: MouseEvent<HTMLElement>, marked: Promise<void>): void {
  // The button goes; the focus stays with what it belonged to.
  currentTarget.closest<HTMLElement>('[tabindex]')?.focus()
  marked.catch(() => {})
}

/** The panel hangs on the button, wherever that is: it is moved aside where it would leave the window. */
function keepInSight(panel: HTMLElement | null | undefined): void {
  if (!panel) return
  panel.style.translate = ''
  const { left, right } = panel.getBoundingClientRect()
  const aside = Math.max(EDGE - left, Math.min(0, innerWidth - EDGE - right))
  panel.style.translate = `${aside}px`
}

/** Arrow keys, Home and End go from item to item. */
function moveFocus(event: KeyboardEvent, root: HTMLElement | null): void {
  const items = [...(root?.querySelectorAll<HTMLElement>('li') ?? [])]
  const at = items.findIndex((item) => item.contains(document.activeElement))
  const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? items.length - 1 : at - 1, Home: 0, End: items.length - 1 }[
    event.key
  ]
  const next = to === undefined ? undefined : items[to]
  if (!next) return
  event.preventDefault()
  next.focus()
}

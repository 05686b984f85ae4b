// A notification: what stands in the data of an event, and how it is shown.

import { type ReactElement, useState } from 'react'
import { useTidings } from '../react/index.js'
import type { Priority } from '../types.js'
import type { Labels } from './labels.js'
import { refused } from './part.js'
import { useTry } from './press.js'

/** What a notification offers to do: publishes `data` on `topic`. */
export interface NotificationAction {
  /** What stands on the button. */
  readonly label: string
  /** Where it publishes. Shown only for the topic of the event itself and for `actionTopics` of the part. */
  readonly topic: string
  /** What it publishes. */
  readonly data?: unknown
}

/** What is shown of an event: the convention for the data of notifications. */
export interface Notification {
  /** The first line; `data.message`, the data where that is a text, or the type of the event where there is none. */
  readonly title: string
  /** What is said below it. */
  readonly body?: string | undefined
  /** What kind of news it is; `info` unless the data says another. */
  readonly level: 'info' | 'success' | 'warning' | 'error'
  /** Where it leads; only `http:`, `https:`, `mailto:` and what is relative. */
  readonly link?: string | undefined
  /** At most four. */
  readonly actions: readonly NotificationAction[]
}

/** What is shown as a notification: an event, or an item of an inbox. */
export interface Shown {
  readonly id: string
  readonly topic: string
  readonly type: string
  readonly priority: Priority
  readonly data?: unknown
}

const levels = ['info', 'success', 'warning', 'error'] as const

/** Reads an event as a notification; anything can be one. */
export function notificationOf(event: Pick<Shown, 'data' | 'type'>): Notification {
  const { data, type } = event
  const said = typeof data === 'object' && data !== null ? (data as Record<string, unknown>) : {}
  const level = levels.find((known) => known === said.level) ?? 'info'
  const title = text(said.title) ?? text(said.message) ?? text(data) ?? type
  const actions = Array.isArray(said.actions) ? said.actions.filter(isAction).slice(0, 4) : []
  return { title, body: text(said.body), level, link: safeLink(text(said.link)), actions }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value.trim() !== '' ? value : undefined
}

function isAction(value: unknown): value is NotificationAction {
  const { label, topic } = (value ?? {}) as Record<string, unknown>
  return text(label) !== undefined && typeof topic === 'string'
}

/** Others wrote the link: a script is none. */
function safeLink(link: string | undefined): string | undefined {
  if (link === undefined) return undefined
  try {
    const { protocol } = new URL(link, 'https://relative.invalid')
    return ['https:', 'http:', 'mailto:'].includes(protocol) ? link : undefined
  } catch {
    return undefined
  }
}

/** What the parts that show notifications take. */
export interface ActionProps {
  /**
   * The topics on which the actions of a notification may publish, beside its own. Others wrote the notification, and
   * its buttons publish with the rights of who reads it: an action on any other topic is not shown. Default none.
   */
  actionTopics?: readonly string[] | undefined
}

/** Title, body and actions. */
export function NotificationText(props: { event: Shown; labels: Labels } & ActionProps): ReactElement {
  const { event, labels, actionTopics = [] } = props
  const { title, body, link, actions } = notificationOf(event)
  const priority = labels.priority(event.priority)
  const allowed = actions.filter(({ topic }) => topic === event.topic || actionTopics.includes(topic))
  return (
    <div className="tidings-text">
      {priority && <span className="tidings-tag">{priority}</span>}
      {link ? <a href={link}>{title}</a> : <strong>{title}</strong>}
      {body && <p>{body}</p>}
      {allowed.map((action, at) => (
        // By their places: they never change, and two may say the same.
        <ActionButton key={at} action={action} event={event} labels={labels} />
      ))}
    </div>
  )
}

function ActionButton(props: { action: NotificationAction; event: Shown; labels: Labels }): ReactElement {
  const { action, event, labels } = props
  const client = useTidings()
  const [state, setState] = useState<'idle' | 'pending' | 'sent' | 'failed'>('idle')
  const [failure, attempt] = useTry()
  // It keeps the focus when it is pressed: it is not `disabled`.
  const done = state === 'pending' || state === 'sent'
  const publish = () => {
    if (done) return
    setState('pending')
    // The answer belongs to what it answers.
    const published = client.publish(action.topic, action.data, { correlation: event.id })
    attempt(published)
    published.then(
      () => setState('sent'),
      () => setState('failed'),
    )
  }
  return (
    <>
      <button type="button" data-state={state} aria-disabled={done} onClick={publish}>
        {action.label}
      </button>
      {refused(failure, labels)}
    </>
  )
}

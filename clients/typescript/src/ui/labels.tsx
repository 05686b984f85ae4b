// Every word that the parts say, in English; a program gives its own for any of them.

import { createContext, type ReactElement, type ReactNode, useContext } from 'react'
import type { TidingsError } from '../errors.js'
import type { Priority, State, TransportName } from '../types.js'

/** What the parts say. Functions are given what they speak of. */
export interface Labels {
  /** The states of the connection. */
  state: (state: State) => string
  transport: (name: TransportName) => string
  latency: (ms: number) => string
  retryIn: (seconds: number) => string
  retryNow: string
  /** How many events wait in the outbox. */
  waiting: (events: number) => string
  /** Names the list of notifications and of toasts. */
  notifications: string
  unread: (count: number) => string
  noNotifications: string
  markRead: string
  markAllRead: string
  dismiss: string
  /** Said before a notification that is not of normal priority; empty: nothing is said. */
  priority: (priority: Priority) => string
  connectionLost: string
  connectionLostHint: string
  connectionRestored: string
  /** The states of an operation, of an agent, of a message: the words of their events where none is known. */
  status: (status: string) => string
  progress: (done: number, of: number) => string
  /** Why something failed. Default what the broker says. */
  failure: (error: TidingsError) => string
  cancel: string
  messages: string
  message: string
  send: string
  retry: string
  jumpToLatest: string
  newMessages: (count: number) => string
  typing: (names: readonly string[]) => string
  people: string
  nobody: string
  agents: string
  noAgents: string
  /** Stops what an agent works at. */
  interrupt: string
  terminal: (name: string) => string
  /** The program of a terminal has ended, with this code. */
  ended: (exit: number | undefined) => string
  /** A moment, given in milliseconds since 1970. */
  time: (at: number) => string
}

const words: Record<string, string> = {
  disconnected: 'Offline',
  connecting: 'Connecting…',
  connected: 'Connected',
  reconnecting: 'Reconnecting…',
  websocket: 'WebSocket',
  sse: 'event stream',
  poll: 'long poll',
  low: 'Minor',
  high: 'Important',
  urgent: 'Urgent',
  pending: 'Sending…',
  sent: 'Sent',
  delivered: 'Delivered',
  failed: 'Failed',
  idle: 'Idle',
  busy: 'Busy',
  online: 'Online',
  offline: 'Offline',
  waiting: 'Waiting',
  started: 'Running',
  running: 'Running',
  completed: 'Done',
  cancelling: 'Cancelling…',
  cancelled: 'Cancelled',
  timed_out: 'Timed out',
  unknown: 'Unknown',
}

const word = (key: string): string => words[key] ?? key

/** The words in English. */
export const english: Labels = {
  state: word,
  transport: word,
  latency: (ms) => `${Math.round(ms)} ms`,
  retryIn: (seconds) => `next try in ${seconds} s`,
  retryNow: 'Try now',
  waiting: (events) => `${events} waiting to be sent`,
  notifications: 'Notifications',
  unread: (count) => (count === 0 ? 'none unread' : `${count} unread`),
  noNotifications: 'No notifications',
  markRead: 'Mark as read',
  markAllRead: 'Mark all as read',
  dismiss: 'Dismiss',
  priority: (priority) => (priority === 'normal' ? '' : word(priority)),
  connectionLost: 'Connection lost',
  connectionLostHint: 'What you send waits here until it is back.',
  connectionRestored: 'Connected again',
  status: word,
  progress: (done, of) => `${done} of ${of}`,
  failure: (error) => error.message,
  cancel: 'Cancel',
  messages: 'Messages',
  message: 'Write a message',
  send: 'Send',
  retry: 'Try again',
  jumpToLatest: 'Jump to latest',
  newMessages: (count) => `${count} new`,
  typing: (names) => {
    const [first = '', second = ''] = names
    if (names.length === 0) return ''
    if (names.length === 1) return `${first} is typing…`
    return names.length === 2 ? `${first} and ${second} are typing…` : `${names.length} people are typing…`
  },
  people: 'People',
  nobody: 'Nobody is here',
  agents: 'Agents',
  noAgents: 'No agents',
  interrupt: 'Stop',
  terminal: (name) => `Terminal ${name}`,
  ended: (exit) => (exit === undefined ? 'Ended' : `Ended (${exit})`),
  time: (at) => new Date(at).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' }),
}

const Context = createContext<Labels>(english)

/** What `LabelsProvider` takes. */
export interface LabelsProviderProps {
  /** These words in the place of the ones above, or of the English ones. */
  labels: Partial<Labels>
  children?: ReactNode
}

/** Gives words to all parts below. */
export function LabelsProvider({ labels, children }: LabelsProviderProps): ReactElement {
  return <Context.Provider value={useLabels(labels)}>{children}</Context.Provider>
}

/** The words that hold here. */
export function useLabels(own?: Partial<Labels>): Labels {
  const above = useContext(Context)
  return own ? { ...above, ...own } : above
}

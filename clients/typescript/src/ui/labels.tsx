// Every word that the parts say, in English; a program gives its own for any of them.

import { createContext, type ReactElement, type ReactNode, useContext, useMemo } from 'react'
import type { TidingsError } from '../errors.js'
import type { Priority, State, TransportName } from '../types.js'

/** What the parts say. Functions are given what they speak of. */
export interface Labels {
  /** The states of the connection. */
  state: (state: State) => string
  /** The ways to the broker. */
  transport: (name: TransportName) => string
  /** How long a ping takes. */
  latency: (ms: number) => string
  /** When the next try begins. */
  retryIn: (seconds: number) => string
  /** The button that tries at once. */
  retryNow: string
  /** How many events wait in the outbox. */
  waiting: (events: number) => string
  /** Names the list of notifications and of toasts. */
  notifications: string
  /** How many notifications are not read. */
  unread: (count: number) => string
  /** There are none. */
  noNotifications: string
  /** It is not known yet whether there are any. */
  loading: string
  /** The button that marks one read. */
  markRead: string
  /** The button that marks all read. */
  markAllRead: string
  /** The button that closes a toast. */
  dismiss: string
  /** Said before a notification that is not of normal priority; empty: nothing is said. */
  priority: (priority: Priority) => string
  /** The toast that says that the connection is lost. */
  connectionLost: string
  /** What it says below that: nothing gets lost. */
  connectionLostHint: string
  /** The toast that says that the connection is back. */
  connectionRestored: string
  /** The states of an operation, of an agent, of a message: the words of their events where none is known. */
  status: (status: string) => string
  /** How far an operation is. */
  progress: (done: number, of: number) => string
  /** Why something failed. Default what the broker says. */
  failure: (error: TidingsError) => string
  /** The button that cancels an operation. */
  cancel: string
  /** Names the list of messages. */
  messages: string
  /** Names the field to write a message in. */
  message: string
  /** The button that sends it. */
  send: string
  /** The button that sends a message again that has failed. */
  retry: string
  /** The button that leads to the end of the list. */
  jumpToLatest: string
  /** How many messages have come below what is in view. */
  newMessages: (count: number) => string
  /** Who is typing. */
  typing: (names: readonly string[]) => string
  /** Names the list of those who are there. */
  people: string
  /** Nobody is there. */
  nobody: string
  /** Names the list of agents. */
  agents: string
  /** There are none. */
  noAgents: string
  /** Stops what an agent works at. */
  interrupt: string
  /** Names a terminal. */
  terminal: (name: string) => string
  /** The program of a terminal has ended, with this code. */
  ended: (exit: number | undefined) => string
  /** A moment, given in milliseconds since 1970: the time, and the day where that is not today. */
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
  streaming: 'Writing…',
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

// What an event says may be the name of something that every object has.
const word = (key: string): string => (Object.hasOwn(words, key) && words[key]) || key

/** Made once: that is what costs. */
let formats: Record<'today' | 'before', Intl.DateTimeFormat> | undefined
const timeOf = (at: number): string => {
  if (Number.isNaN(at)) return ''
  formats ??= {
    today: new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' }),
    before: new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' }),
  }
  const isToday = new Date(at).toDateString() === new Date().toDateString()
  return formats[isToday ? 'today' : 'before'].format(at)
}

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
  loading: 'Loading…',
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
  time: timeOf,
}

const Context = createContext<Labels>(english)

/** What `LabelsProvider` takes. */
export interface LabelsProviderProps {
  /** These words in the place of the ones above, or of the English ones. */
  labels: Partial<Labels>
  /** The parts that say these words. */
  children?: ReactNode
}

/** Gives words to all parts below. */
export function LabelsProvider({ labels, children }: LabelsProviderProps): ReactElement {
  return <Context.Provider value={useLabels(labels)}>{children}</Context.Provider>
}

/** The words that hold here. */
export function useLabels(own?: Partial<Labels>): Labels {
  const above = useContext(Context)
  // A word that is given as `undefined` is not given.
  return useMemo(() => {
    const given = Object.entries(own ?? {}).filter(([, word]) => word !== undefined)
    return given.length > 0 ? { ...above, ...Object.fromEntries(given) } : above
  }, [above, own])
}

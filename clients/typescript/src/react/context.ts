// The client that components use. It is made outside of React, lives longer than any component, and is not closed here.

import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useSyncExternalStore,
} from 'react'
import type { AnySchema, Client, State, Status } from '../types.js'

const Context = createContext<Client | undefined>(undefined)

/** What `TidingsProvider` takes. */
export interface TidingsProviderProps<S = AnySchema> {
  /** Made by `createClient`, once, outside of components. */
  client: Client<S>
  /** Whatever is to have the client. */
  children?: ReactNode
}

/** Gives the client to all components below. It does not close it: that is for whoever made it. */
export function TidingsProvider<S = AnySchema>(props: TidingsProviderProps<S>): ReactElement {
  return createElement(Context.Provider, { value: props.client as unknown as Client }, props.children)
}

/** The client of the nearest `TidingsProvider`. Throws where there is none. */
export function useTidings<S = AnySchema>(): Client<S> {
  const client = useContext(Context)
  if (!client) throw new Error('there is no TidingsProvider above this component')
  return client as unknown as Client<S>
}

const offline: Status = {
  state: 'disconnected',
  transport: undefined,
  since: 0,
  attempt: 0,
  nextRetryAt: undefined,
  latencyMs: undefined,
  outboxEvents: 0,
  error: undefined,
}

/** How the connection stands. On a server: `disconnected`. */
export function useConnection(): Status {
  const client = useTidings()
  const subscribe = useCallback((listener: () => void) => client.on('status', listener), [client])
  return useSyncExternalStore(
    subscribe,
    () => client.status,
    () => offline,
  )
}

/** What waits to be sent. */
export interface OutboxView {
  /** How many events were published and not yet answered by the broker. */
  readonly events: number
  /** The state of the connection they wait for. */
  readonly state: State
}

/** What waits to be sent. On a server: nothing. */
export function useOutbox(): OutboxView {
  const { outboxEvents, state } = useConnection()
  return { events: outboxEvents, state }
}

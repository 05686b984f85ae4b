// Who this window is: a name that can be changed, and what it has taken on. A reload keeps both; another window is another.

import { createStore } from 'zustand/vanilla'

export interface Me {
  readonly name: string
  /** Whether this window answers in the chat and works at tasks. */
  readonly assistant: boolean
  readonly worker: boolean
  /** The agent that it is, if any. */
  readonly agent: string | undefined
}

const KEY = 'tidings-demo'
const BIRDS = ['Heron', 'Wren', 'Finch', 'Plover', 'Swift', 'Robin', 'Curlew', 'Linnet', 'Martin', 'Siskin']

function anybody(): Me {
  const [bird = 0, number = 0] = crypto.getRandomValues(new Uint8Array(2))
  return { name: `${BIRDS[bird % BIRDS.length]} ${number % 100}`, assistant: true, worker: true, agent: undefined }
}

function kept(): Partial<Me> {
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? '{}')
    return typeof found === 'object' && found !== null ? found : {}
  } catch {
    return {}
  }
}

export const me = createStore<Me>(() => ({ ...anybody(), ...kept() }))

const keep = (state: Me): void => {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state))
  } catch {
    // Then a reload is another window.
  }
}
keep(me.getState())
me.subscribe(keep)

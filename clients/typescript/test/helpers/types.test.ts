// What the compiler knows of typed topics, through the helpers.

import { expectTypeOf, test } from 'vitest'
import { TidingsAgent } from '../../src/ag-ui/index.js'
import { type Chat, chat, inbox, operation, reply, terminal } from '../../src/helpers/index.js'
import { type Client, createClient, type TidingsEvent } from '../../src/index.js'
import { tidingsStore } from '../../src/zustand/index.js'

interface Task {
  done: number
}
interface Topics {
  'tasks.*': Task
  'rooms.>': { text: string }
}

test('typed topics reach handlers, reducers and messages', () => {
  const client: Client<Topics> = createClient<Topics>('http://127.0.0.1:1', { autoConnect: false })
  const room = chat(client, 'rooms.1')
  expectTypeOf(room).toEqualTypeOf<Chat<{ text: string }>>()
  const responder = reply(client, 'tasks.7', (question) => expectTypeOf(question).toEqualTypeOf<TidingsEvent<Task>>())
  const store = tidingsStore(client, 'tasks.*', (sum, event) => sum + (event.data?.done ?? 0), { initial: 0 })
  expectTypeOf(store.getState()).toEqualTypeOf<number>()
  // Those that make their topics themselves take a client of any schema.
  operation(client, '7')
  const box = inbox(client, 'alice')
  const screen = terminal(client, '7')
  new TidingsAgent({ client, agent: '7' })
  return Promise.all([room, responder, store, box, screen].map((one) => one.close()).concat(client.close()))
})

// Typed topics: what the compiler makes of a schema. `npm run typecheck` is what fails here.

import { expect, expectTypeOf, test } from 'vitest'
import type { Client, DataOf, Subscription } from '../../src/index.js'

interface Task {
  done: number
}
interface Message {
  text: string
}
interface Topics {
  'tasks.*': Task
  'chat.>': Message
  'chat.system': { notice: string }
  exact: number
}

test('a topic has the data of all filters that match it', () => {
  expectTypeOf<DataOf<Topics, 'tasks.42'>>().toEqualTypeOf<Task>()
  expectTypeOf<DataOf<Topics, 'tasks.42.more'>>().toEqualTypeOf<unknown>()
  expectTypeOf<DataOf<Topics, 'chat.room.1'>>().toEqualTypeOf<Message>()
  expectTypeOf<DataOf<Topics, 'chat.system'>>().toEqualTypeOf<Message | { notice: string }>()
  expectTypeOf<DataOf<Topics, 'exact'>>().toEqualTypeOf<number>()
  expectTypeOf<DataOf<Topics, 'other'>>().toEqualTypeOf<unknown>()
  expectTypeOf<DataOf<Topics, 'tasks.*'>>().toEqualTypeOf<Task>()
  expectTypeOf<DataOf<Topics, '*.42'>>().toEqualTypeOf<Task | Message>()
  expectTypeOf<DataOf<Topics, string>>().toEqualTypeOf<unknown>()
  expect(true).toBe(true)
})

test('publish and subscribe are typed by it', () => {
  type C = Client<Topics>
  const uses = (client: C): void => {
    void client.publish('tasks.42', { done: 1 })
    // @ts-expect-error the data of tasks is another
    void client.publish('tasks.42', { text: 'x' })
    client.subscribe('chat.room', (event) => expectTypeOf(event.data).toEqualTypeOf<Message | undefined>())
    client.subscribe(['tasks.1', 'exact'], {}, (event) =>
      expectTypeOf(event.data).toEqualTypeOf<Task | number | undefined>(),
    )
    expectTypeOf(client.subscribe('tasks.1')).toEqualTypeOf<Subscription<Task>>()
  }
  const plain = (client: Client): void => {
    void client.publish('anything', { at: 'all' })
    client.subscribe('anything', (event) => expectTypeOf(event.data).toEqualTypeOf<unknown>())
  }
  expect([uses, plain]).toHaveLength(2)
})

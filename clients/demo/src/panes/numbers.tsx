// The proof: numbers that are published here and counted when they come back.

import type { ReactElement } from 'react'
import { tidingsStore } from 'tidings/zustand'
import { useStore } from 'zustand'
import { createStore } from 'zustand/vanilla'
import { client } from '../client'

const TOPIC = 'numbers.demo'
const BURST = 100
/** Names this page: numbers begin anew with each. */
const page = crypto.randomUUID()

/** What was published here, and what became of it. */
const sent = createStore(() => ({ published: 0, stored: 0, refused: 0 }))

interface Came {
  readonly received: number
  /** Numbers that were there before. */
  readonly doubled: number
  /** Numbers before which others should have come. */
  readonly early: number
}

/** The next number of ours is one more than the last: nothing lost, nothing doubled, nothing out of order. */
const came = tidingsStore<Came>(
  client,
  TOPIC,
  (state, event) => {
    const { from, n } = event.data as { from?: unknown; n?: unknown }
    if (from !== page || typeof n !== 'number') return state
    if (n === state.received + 1) return { ...state, received: n }
    return n <= state.received ? { ...state, doubled: state.doubled + 1 } : { ...state, early: state.early + 1 }
  },
  { initial: { received: 0, doubled: 0, early: 0 }, after: 'now', afterGap: (state) => state },
)

function publish(): void {
  for (let count = 0; count < BURST; count++) {
    const { published } = sent.getState()
    sent.setState({ published: published + 1 })
    client.publish(TOPIC, { from: page, n: published + 1 }, { type: 'number' }).then(
      () => sent.setState(({ stored }) => ({ stored: stored + 1 })),
      () => sent.setState(({ refused }) => ({ refused: refused + 1 })),
    )
  }
}

export function Numbers(): ReactElement {
  const { published, stored, refused } = useStore(sent)
  const { received, doubled, early } = useStore(came)
  const counts: [string, number][] = [
    ['published', published],
    ['stored', stored],
    ['received', received],
    ['on the way', published - refused - received],
    ['refused', refused],
    ['doubled', doubled],
    ['out of order', early],
  ]
  return (
    <div className="numbers">
      <button type="button" onClick={publish}>
        Publish {BURST} numbers
      </button>
      <dl className="facts" aria-label="Numbers">
        {counts.map(([name, count]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd data-count={name}>{count}</dd>
          </div>
        ))}
      </dl>
    </div>
  )
}

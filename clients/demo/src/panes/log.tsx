// The log itself: publishing, and all that comes; and the proof that nothing is lost or doubled on the way.

import { type FormEvent, type ReactElement, useState } from 'react'
import type { TidingsEvent } from 'tidings'
import { type EventsOptions, useEvents, usePublish } from 'tidings/react'
import { Pane } from '../parts/pane'
import { Numbers } from './numbers'

/** The most rows. */
const ROWS_MAX = 200
/** The most characters of data in a row. */
const DATA_MAX = 160
const opened = Date.now()
const AFTER: Readonly<Record<string, NonNullable<EventsOptions['after']>>> = {
  recent: new Date(opened - 600_000),
  first: 'first',
}

export function LogPane(): ReactElement {
  return (
    <Pane
      name="log"
      title="Log"
      about="Everything on this page is an event in one log. Publish a hundred while the network is cut or the broker is dead: they come once, in order."
    >
      <Publish />
      <Numbers />
      <Tail />
    </Pane>
  )
}

function Publish(): ReactElement {
  const [topic, setTopic] = useState('greetings.world')
  const [data, setData] = useState('{"hello":"world"}')
  const { publish, pending, error } = usePublish()
  const submit = (event: FormEvent) => {
    event.preventDefault()
    // A refusal is in `error`.
    publish(topic, parsed(data)).catch(() => undefined)
  }
  return (
    <form className="publish" onSubmit={submit}>
      <label className="field">
        <span>Topic</span>
        <input type="text" required value={topic} onChange={(event) => setTopic(event.target.value)} />
      </label>
      <label className="field">
        <span>Data</span>
        <input type="text" value={data} onChange={(event) => setData(event.target.value)} />
      </label>
      <button type="submit">Publish</button>
      <output className="quiet">
        {error ? `Refused: ${error.message}` : pending > 0 ? `${pending} on the way` : ''}
      </output>
    </form>
  )
}

/** JSON where it is, else a text. */
function parsed(data: string): unknown {
  try {
    return JSON.parse(data)
  } catch {
    return data
  }
}

function Tail(): ReactElement {
  const [filter, setFilter] = useState('>')
  const [typed, setTyped] = useState(filter)
  const [from, setFrom] = useState('recent')
  const events = useEvents(filter, { limit: ROWS_MAX, after: AFTER[from] ?? 'now' })
  const { error } = events
  const submit = (event: FormEvent) => {
    event.preventDefault()
    setFilter(typed.trim() || '>')
  }
  return (
    <>
      <form className="publish" onSubmit={submit}>
        <label className="field">
          <span>Filter</span>
          <input type="text" value={typed} onChange={(event) => setTyped(event.target.value)} />
        </label>
        <label className="field">
          <span>From</span>
          <select value={from} onChange={(event) => setFrom(event.target.value)}>
            <option value="recent">the last ten minutes on</option>
            <option value="first">the first event on</option>
          </select>
        </label>
        <button type="submit">Show</button>
        <output className="quiet">{error && `Refused: ${error.message}`}</output>
      </form>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard */}
      <section className="tail" aria-label="Events, the newest first" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Offset</th>
              <th scope="col">Topic</th>
              <th scope="col">Type</th>
              <th scope="col">Data</th>
            </tr>
          </thead>
          <tbody>
            {[...events].reverse().map((event) => (
              <Row key={event.offset} event={event} />
            ))}
          </tbody>
        </table>
      </section>
    </>
  )
}

function Row({ event }: { event: TidingsEvent }): ReactElement {
  const { offset, topic, type, own } = event
  return (
    <tr data-own={own}>
      <td>{offset}</td>
      <td>{topic}</td>
      <td>{type}</td>
      <td>{dataOf(event)}</td>
    </tr>
  )
}

function dataOf({ data }: TidingsEvent): string {
  const text = data instanceof Uint8Array ? `${data.length} bytes` : (JSON.stringify(data) ?? '')
  return text.length > DATA_MAX ? `${text.slice(0, DATA_MAX)}…` : text
}

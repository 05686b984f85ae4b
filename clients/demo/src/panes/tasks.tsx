// The task board: jobs that wait, operations that run, and how they ended.

import type { ReactElement } from 'react'
import { useOperation } from 'tidings/react'
import { OperationProgress } from 'tidings/ui'
import { tidingsStore } from 'tidings/zustand'
import { useStore } from 'zustand'
import { client } from '../client'
import { me } from '../me'
import { Here } from '../parts/here'
import { Pane } from '../parts/pane'
import { type Job, type JobKind, jobOf, KINDS, request } from '../work/jobs'

/** The most jobs that are shown; the oldest go. */
const SHOWN_MAX = 12

type Jobs = ReadonlyMap<string, Job>

/** The newest word of every job, in the order in which they were first asked for. */
const jobs = tidingsStore<Jobs>(
  client,
  'jobs.*',
  (state, event) => {
    const job = jobOf(event.data)
    if (job === undefined) return state
    return new Map([...state, [event.topic.slice('jobs.'.length), job] as const].slice(-2 * SHOWN_MAX))
  },
  { initial: new Map(), lastPerKey: true },
)

export function TasksPane(): ReactElement {
  const shown = [...useStore(jobs)].slice(-SHOWN_MAX).reverse()
  const { worker } = useStore(me)
  return (
    <Pane
      name="tasks"
      title="Task board"
      about="Jobs wait in a queue until a worker takes them. Close the window of the worker in the middle of one: another worker begins it anew."
    >
      <p className="buttons">
        {Object.entries(KINDS).map(([kind, { title, about }]) => (
          <button key={kind} type="button" title={about} onClick={() => start(kind as JobKind)}>
            {title}
          </button>
        ))}
      </p>
      <Here on={worker} onChange={(on) => me.setState({ worker: on })}>
        A worker runs in this window (a timer in the page, it does no real work)
      </Here>
      <div className="board">
        <p aria-hidden="true">Waiting</p>
        <p aria-hidden="true">Running</p>
        <p aria-hidden="true">Ended</p>
        <ul className="cards" aria-label="Tasks">
          {shown.map(([id, job]) => (
            <Task key={id} id={id} job={job} />
          ))}
        </ul>
      </div>
      {shown.length === 0 && <p className="quiet">There are no tasks yet.</p>}
    </Pane>
  )
}

function start(kind: JobKind): void {
  request(crypto.randomUUID().slice(0, 8), { kind, attempt: 1 })
}

function Task({ id, job }: { id: string; job: Job }): ReactElement {
  const { status, attempt, overdue } = useOperation(id)
  const { title } = KINDS[job.kind]
  const waits = job.attempt > attempt
  const column = waits ? 'waiting' : status === 'running' ? 'running' : 'ended'
  const again = column === 'ended' && status !== 'completed'
  return (
    <li className="task" data-column={column}>
      <OperationProgress operation={id} title={title} labels={waits ? { status: () => 'Waiting for a worker' } : {}} />
      <p className="quiet">
        {id} · try {Math.max(attempt, job.attempt)}
        {overdue && ' · overdue: its worker may be gone'}
        {again && (
          <button type="button" onClick={() => request(id, { ...job, attempt: attempt + 1 })}>
            Try again<span className="tidings-hidden"> {title}</span>
          </button>
        )}
      </p>
    </li>
  )
}

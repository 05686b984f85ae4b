// A structure that is edited in several windows at once: a plan with steps.
//
// - What is typed replaces a part: the last one wins, and every key is an event.
// - What depends on what is there (a counter, the order of the steps) is an `edit`: computed anew where another window was
//   faster.

import { type ReactElement, useReducer, useSyncExternalStore } from 'react'
import { type Changes, pathOf, structure, valueAt } from 'tidings/helpers'
import { client } from '../client'
import { Pane } from '../parts/pane'

interface Step {
  readonly text?: string
  readonly done?: boolean
  /** Where it stands: steps are shown by rising rank. */
  readonly rank?: number
}

interface Plan {
  readonly title?: string
  readonly votes?: number
  readonly steps?: Readonly<Record<string, Step>>
}

const STEPS_MAX = 20
const plan = structure<Plan>(client, 'demo-plan')

function usePlan() {
  return useSyncExternalStore(plan.subscribe, plan.snapshot)
}

/** A refused change is taken back by itself; why is told by the client as an error. */
function set(path: string, value: unknown): void {
  plan.set(path, value).catch(() => undefined)
}

function edit(change: (value: Plan) => Changes | undefined): void {
  plan.edit((value) => change(value ?? {})).catch(() => undefined)
}

function ordered({ steps = {} }: Plan): [id: string, step: Step][] {
  return Object.entries(steps).sort(([a, { rank: m = 0 }], [b, { rank: n = 0 }]) => m - n || (a < b ? -1 : 1))
}

function add(): void {
  const id = crypto.randomUUID().slice(0, 8)
  edit((value) => {
    const steps = ordered(value)
    if (steps.length >= STEPS_MAX) return undefined
    return { [pathOf(['steps', id])]: { text: '', done: false, rank: (steps.at(-1)?.[1].rank ?? 0) + 1 } }
  })
}

/** It changes places with the one before it. */
function raise(id: string): void {
  edit((value) => {
    const steps = ordered(value)
    const at = steps.findIndex(([other]) => other === id)
    const [before, here] = [steps[at - 1], steps[at]]
    if (before === undefined || here === undefined) return undefined
    return {
      [pathOf(['steps', before[0], 'rank'])]: here[1].rank ?? 0,
      [pathOf(['steps', id, 'rank'])]: before[1].rank ?? 0,
    }
  })
}

export function PlanPane(): ReactElement {
  const { value = {}, last, pending, caughtUp, error } = usePlan()
  const steps = ordered(value)
  const { votes = 0 } = value
  return (
    <Pane
      name="plan"
      title="Plan"
      about="A structure of parts, edited by all windows. Edit it in two of them at once, also with one of them cut off: they come out the same."
    >
      <TextPart label="Title" path={pathOf(['title'])} />
      {/* Above the steps: what others add does not move the buttons. */}
      <p className="buttons">
        <button type="button" disabled={!caughtUp || steps.length >= STEPS_MAX} onClick={add}>
          Add a step
        </button>
        <button type="button" onClick={() => edit(({ votes = 0 }) => ({ [pathOf(['votes'])]: votes + 1 }))}>
          Vote for it
        </button>
        <output aria-label="Votes">{votes === 1 ? '1 vote' : `${votes} votes`}</output>
      </p>
      <ol aria-label="Steps">
        {steps.map(([id, step], at) => (
          <li key={id}>
            <input
              type="checkbox"
              aria-label={`Step ${at + 1} is done`}
              checked={step.done === true}
              onChange={(event) => set(pathOf(['steps', id, 'done']), event.target.checked)}
            />
            <TextPart label={`Step ${at + 1}`} path={pathOf(['steps', id, 'text'])} quiet />
            <button type="button" aria-label={`Move step ${at + 1} up`} disabled={at === 0} onClick={() => raise(id)}>
              ↑
            </button>
            <button
              type="button"
              aria-label={`Remove step ${at + 1}`}
              onClick={() => set(pathOf(['steps', id]), undefined)}
            >
              ×
            </button>
          </li>
        ))}
      </ol>
      <p className="quiet" role="status">
        {error ? error.message : `As of offset ${last}${pending > 0 ? `, ${pending} of our changes on their way` : ''}`}
      </p>
    </Pane>
  )
}

function TextPart({ label, path, quiet = false }: { label: string; path: string; quiet?: boolean }): ReactElement {
  const { value } = usePlan()
  const text = valueAt(value, path)
  // What is typed is in the next snapshot already: rendered at once, the cursor in the field stays where it is.
  const [, rendered] = useReducer((count: number) => count + 1, 0)
  return (
    <label className="field">
      <span className={quiet ? 'tidings-hidden' : ''}>{label}</span>
      <input
        type="text"
        value={typeof text === 'string' ? text : ''}
        onChange={(event) => {
          set(path, event.target.value)
          rendered()
        }}
      />
    </label>
  )
}

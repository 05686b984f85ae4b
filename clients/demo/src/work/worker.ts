// The worker of the task board.
//
// - All windows share one durable subscription: each job goes to one of them, up to six at a time over all.
// - A job is acknowledged when it has ended, however it has. Where its window is closed before, another one begins it anew,
//   as the next try: what the first may still say counts no more.

import type { TidingsEvent } from 'tidings'
import { type OperationWork, operation } from 'tidings/helpers'
import { client } from '../client'
import { type JobKind, jobOf, KINDS } from './jobs'
import { notify } from './notify'
import { whileWanted } from './switched'
import { wait } from './wait'

interface Plan {
  readonly steps: number
  readonly stepMs: number
  readonly deadlineMs?: number
  /** The step at which it fails. */
  readonly failsAt?: number
}

/** How a job of this kind goes at its n-th try. */
function planOf(kind: JobKind, attempt: number): Plan {
  if (kind === 'flaky') return { steps: 30, stepMs: 80, ...(attempt === 1 && { failsAt: 18 }) }
  // Whoever tries it again gives it more time.
  if (kind === 'slow') return { steps: 50, stepMs: 120, deadlineMs: attempt === 1 ? 3_000 : 30_000 }
  return { steps: 60, stepMs: 100 }
}

async function run(task: OperationWork, plan: Plan, signal: AbortSignal): Promise<void> {
  const either = AbortSignal.any([signal, task.signal])
  for (let done = 1; done <= plan.steps; done++) {
    await wait(plan.stepMs, either)
    if (done === plan.failsAt) throw new Error('The source did not answer')
    task.progress(done)
  }
  await task.complete()
}

async function work(event: TidingsEvent, signal: AbortSignal): Promise<void> {
  const job = jobOf(event.data)
  if (job === undefined) return
  const id = event.topic.slice('jobs.'.length)
  const { title } = KINDS[job.kind]
  const attempt = job.attempt + event.attempts - 1
  const plan = planOf(job.kind, attempt)
  const { steps: of, deadlineMs } = plan
  const task = await operation(client, id).start({ title, of, attempt, ...(deadlineMs && { deadlineMs }) })
  try {
    await run(task, plan, signal)
    notify({ title: `Done: ${title}`, level: 'success' }, 'low')
  } catch (cause) {
    // Left to another window, as if this one were closed.
    if (signal.aborted) throw cause
    if (!task.signal.aborted) {
      await task.fail(cause)
      notify({ title: `Failed: ${title}`, body: 'Try it again on the task board.', level: 'error' })
    } else if ((task.signal.reason as { code?: string }).code === 'timeout') {
      notify({ title: `Timed out: ${title}`, body: 'A second try is given more time.', level: 'warning' })
    }
  }
}

/** Works as long as this window is to. */
export function startWorker(): void {
  whileWanted(
    ({ worker }) => worker,
    (signal) => {
      client.subscribe(
        'jobs.*',
        {
          durable: 'demo-worker',
          mode: 'shared',
          start: 'first',
          ack: 'manual',
          maxInFlight: 6,
          ackWaitMs: 60_000,
          signal,
        },
        (event, queue) => {
          // Not waited for: the next job is begun beside it.
          void work(event, signal)
            .then(() => queue.ack(event))
            .catch(() => undefined)
        },
      )
    },
  )
}

// Which run a thread is in, kept so that a page that is loaded anew finds it again.

import type { RunAgentInput } from '@ag-ui/client'

/** The last run of a thread. */
export interface StoredRun {
  /** The run: its events are on `runs.<runId>`. */
  readonly runId: string
  /** The log that `cursor` belongs to; empty until its place is known. */
  readonly log: string
  /** The place before its first event. */
  readonly cursor: number
  /** The ids of the messages that were there before it: what the run makes is made anew from them. */
  readonly messageIds: readonly string[]
  /** The state that was there before it. */
  readonly state: unknown
  /** The command, until the broker has it: it is sent again under the same id. */
  readonly unsent?: RunAgentInput
}

/** Keeps the last run of each thread. */
export interface RunStore {
  /** The last run of the thread; `undefined` where none is known. */
  get(threadId: string): StoredRun | undefined
  /** Keeps the run in the place of the one before. */
  set(threadId: string, run: StoredRun): void
}

/** Keeps them in `localStorage`, or another storage, under `prefix` and the thread's id. What has no room is not kept. */
export function localRuns(
  prefix = 'tidings-run:',
  storage: Pick<Storage, 'getItem' | 'setItem'> = localStorage,
): RunStore {
  return {
    get(threadId) {
      try {
        const run: unknown = JSON.parse(storage.getItem(prefix + threadId) ?? 'null')
        return isRun(run) ? run : undefined
      } catch {
        return undefined
      }
    },
    set(threadId, run) {
      try {
        storage.setItem(prefix + threadId, JSON.stringify(run))
      } catch {
        // Full, or forbidden: the run goes on, and is not found again after a reload.
      }
    },
  }
}

/** Keeps them as long as the page: the newest 100 threads. */
export function memoryRuns(): RunStore {
  const runs = new Map<string, StoredRun>()
  return {
    get: (threadId) => runs.get(threadId),
    set(threadId, run) {
      runs.delete(threadId)
      runs.set(threadId, run)
      for (const oldest of runs.keys()) if (runs.size > 100) runs.delete(oldest)
    },
  }
}

function isRun(value: unknown): value is StoredRun {
  const { runId, log, cursor, messageIds } = (value ?? {}) as Partial<StoredRun>
  return (
    typeof runId === 'string' && typeof log === 'string' && Number.isSafeInteger(cursor) && Array.isArray(messageIds)
  )
}

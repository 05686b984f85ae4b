// Jobs of the task board: asked for on `jobs.<id>`, done by a worker in one of the windows as the operation `<id>`.

import { client } from '../client'

export const KINDS = {
  import: { title: 'Import 60 rows', about: 'takes six seconds' },
  flaky: { title: 'Fetch from a shaky source', about: 'fails, and works when tried again' },
  slow: { title: 'Count every grain of sand', about: 'passes its deadline of three seconds' },
} as const

export type JobKind = keyof typeof KINDS

/** A job as it is asked for. */
export interface Job {
  readonly kind: JobKind
  /** The number of the try: 1, or more when somebody wants it again. */
  readonly attempt: number
}

export function jobOf(data: unknown): Job | undefined {
  const { kind, attempt } = (data ?? {}) as Partial<Record<keyof Job, unknown>>
  if (typeof kind !== 'string' || !Object.hasOwn(KINDS, kind) || typeof attempt !== 'number') return undefined
  return { kind: kind as JobKind, attempt }
}

/** Asks for it. It waits until there is a worker. */
export function request(id: string, job: Job): void {
  // A refusal is told by the client as an error, which the connection panel shows.
  // By its id each try is asked for once, in however many windows it is.
  client.publish(`jobs.${id}`, job, { type: 'job.requested', id: `${id}:${job.attempt}` }).catch(() => undefined)
}

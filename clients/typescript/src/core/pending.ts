// Requests on one socket that have not been answered. An answer goes to who asked; each has its time.

import { TidingsError } from '../errors.js'
import type { WireMessage, Words } from '../wire.js'
import { kindOf } from './check.js'
import { refusal } from './verdict.js'
import type { Timer } from './wait.js'

interface Asked {
  /** Has the answer before the next message is read. */
  resolve(answer: Words): void
  reject(error: TidingsError): void
  timer: Timer
}

export class Pending {
  readonly #asked = new Map<number, Asked>()
  #id = 0

  /** A number that no open request has: far fewer than 2^32 are open at a time. */
  next(): number {
    this.#id = (this.#id % 0xffff_ffff) + 1
    return this.#id
  }

  /** Waits for the answer to this number, for ever where `timeoutMs` is `Infinity`. `reject` has the code `timeout` when it did not come in time. */
  add(id: number, timeoutMs: number, resolve: Asked['resolve'], reject: Asked['reject']): void {
    const late = (): void => {
      this.#asked.delete(id)
      reject(new TidingsError('timeout', `no answer within ${timeoutMs} ms`))
    }
    const timer = timeoutMs === Infinity ? undefined : setTimeout(late, timeoutMs)
    this.#asked.set(id, { resolve, reject, timer })
  }

  answer(message: WireMessage): void {
    const id = message.reply as number
    const asked = this.#asked.get(id)
    const kind = kindOf(message)
    if (!asked || !kind) return
    this.#asked.delete(id)
    clearTimeout(asked.timer)
    const answer = message[kind] as Words
    if (kind === 'error') asked.reject(refusal(answer))
    else asked.resolve(kind === 'scheduled' ? { ...answer, scheduled: true } : answer)
  }

  fail(error: TidingsError): void {
    for (const { timer, reject } of this.#asked.values()) {
      clearTimeout(timer)
      reject(error)
    }
    this.#asked.clear()
  }
}

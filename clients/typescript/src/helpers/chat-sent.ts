// Messages that were sent here and are not seen in the log yet, of one topic and type.
//
// - They belong to the client, not to who shows them: what waits, or was refused, is there again when somebody follows the
//   conversation the next time, and all who follow it show it.
// - One that the broker has is kept for as long as somebody follows: it is shown until its event comes.

import type { ChatMessage } from './chat.js'
import { type AnyClient, failure } from './data.js'

/** The most messages that wait or have failed; the oldest that do not wait go first. */
const SENT_MAX = 1_000
/** The most conversations of a client that are kept for what is in here; those that nobody follows go first. */
const KEPT_MAX = 200

/** A message on its way, with what it takes to send it again. */
export interface SentMessage {
  message: ChatMessage<never>
  readonly data: unknown
  readonly headers: Record<string, string> | undefined
  readonly receipts: boolean
}

/** Who follows the conversation. */
export interface Follower {
  /** Something is another. */
  changed(): void
  /** The broker has this message, at this offset. */
  answered(id: string, offset: number): void
}

/** See above. */
export class Sent {
  readonly messages = new Map<string, SentMessage>()
  readonly #followers = new Set<Follower>()
  readonly #client: AnyClient
  readonly #topic: string
  readonly #type: string
  /** Forgets it where it is not needed any more. */
  readonly #tidy: () => void

  private constructor(client: AnyClient, topic: string, type: string, tidy: () => void) {
    this.#client = client
    this.#topic = topic
    this.#type = type
    this.#tidy = tidy
  }

  /** Those of this client; `follower` is told of them until what is returned beside them is called. */
  static follow(client: AnyClient, topic: string, type: string, follower: Follower): [Sent, () => void] {
    const all = ofClients.get(client) ?? new Map<string, Sent>()
    ofClients.set(client, all)
    const key = JSON.stringify([topic, type])
    const tidy = (): void => {
      for (const [key, other] of all)
        if (other.#followers.size === 0 && (other.messages.size === 0 || all.size > KEPT_MAX)) all.delete(key)
    }
    const sent = all.get(key) ?? new Sent(client, topic, type, tidy)
    all.set(key, sent)
    sent.#followers.add(follower)
    const leave = (): void => {
      sent.#followers.delete(follower)
      if (sent.#followers.size > 0) return
      for (const [id, { message }] of sent.messages) if (isThere(message)) sent.messages.delete(id)
      tidy()
    }
    return [sent, leave]
  }

  add(sent: SentMessage): void {
    this.messages.set(sent.message.id, sent)
    if (this.messages.size > SENT_MAX) {
      for (const [id, { message }] of this.messages) {
        if (message.state === 'pending') continue
        this.messages.delete(id)
        break
      }
    }
    void this.#publish(sent)
  }

  retry(id: string): void {
    const sent = this.messages.get(id)
    if (sent?.message.state !== 'failed') return
    sent.message = { ...sent.message, state: 'pending', error: undefined }
    void this.#publish(sent)
  }

  discard(id: string): void {
    if (this.messages.get(id)?.message.state !== 'failed') return
    this.messages.delete(id)
    this.#tell((follower) => follower.changed())
  }

  async #publish(sent: SentMessage): Promise<void> {
    const { data, headers, receipts, message } = sent
    const { id } = message
    this.#tell((follower) => follower.changed())
    try {
      const options = { id, type: this.#type, receipts, ...(headers && { headers }) }
      const { offset } = await this.#client.publish(this.#topic, data, options)
      if (sent.message.state === 'pending') sent.message = { ...sent.message, state: 'sent', offset }
      if (this.#followers.size === 0) {
        this.messages.delete(id)
        this.#tidy()
      }
      this.#tell((follower) => follower.answered(id, offset))
    } catch (cause) {
      // Where its event has come before its answer, it is there all the same: nobody asks this one any more.
      sent.message = { ...sent.message, state: 'failed', error: failure(cause) }
      this.#tell((follower) => follower.changed())
    }
  }

  #tell(how: (follower: Follower) => void): void {
    for (const follower of [...this.#followers]) how(follower)
  }
}

const ofClients = new WeakMap<AnyClient, Map<string, Sent>>()

/** Whether the broker has it. */
function isThere({ state }: ChatMessage): boolean {
  return state === 'sent' || state === 'delivered'
}

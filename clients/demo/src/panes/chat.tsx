// A room: people in windows, and an assistant whose answers come word by word.

import { type FormEvent, type KeyboardEvent, type ReactElement, type ReactNode, useRef, useState } from 'react'
import type { ChatMessage } from 'tidings/helpers'
import { useChat, useTyping } from 'tidings/react'
import { ChatThread } from 'tidings/ui'
import { useStore } from 'zustand'
import { me } from '../me'
import { Here } from '../parts/here'
import { Pane } from '../parts/pane'
import { ANSWER, ASK, CHAT } from '../work/assistant'

/** What a message of this room has. */
interface Said {
  readonly text: string
  readonly name: string
}

export function ChatPane(): ReactElement {
  const { name, assistant } = useStore(me)
  return (
    <Pane
      name="chat"
      title="Chat"
      about="Open a second window and write in both. Ask the assistant something, and cut the network or kill the broker while it answers."
    >
      <div className="thread">
        <ChatThread topic={CHAT} name={name} author={authorOf} compose={false} />
      </div>
      <Compose name={name} />
      <Here on={assistant} onChange={(on) => me.setState({ assistant: on })}>
        The assistant answers from this window (a script in the page, no model)
      </Here>
    </Pane>
  )
}

function authorOf({ id, own, data }: ChatMessage): ReactNode {
  if (id.startsWith(ANSWER)) return <span className="assistant">Assistant</span>
  return own ? undefined : ((data as Partial<Said> | undefined)?.name ?? 'somebody')
}

function Compose({ name }: { name: string }): ReactElement {
  const chat = useChat<Said>(CHAT)
  const { typing, stopped } = useTyping(CHAT, { name })
  const [text, setText] = useState('')
  const form = useRef<HTMLFormElement>(null)
  const send = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (text.trim() === '') return
    const { submitter } = event.nativeEvent as SubmitEvent
    const asked = submitter?.getAttribute('name') === 'ask'
    chat.send({ text, name }, asked ? { headers: ASK } : {})
    setText('')
    stopped()
  }
  const onKeyDown = (event: KeyboardEvent) => {
    // Enter also ends the word that an input method proposes.
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return
    event.preventDefault()
    form.current?.requestSubmit()
  }
  return (
    <form className="compose" ref={form} onSubmit={send}>
      <textarea
        aria-label="Write a message"
        placeholder="Write a message, or a question"
        rows={2}
        value={text}
        onChange={(event) => {
          setText(event.target.value)
          typing()
        }}
        onKeyDown={onKeyDown}
      />
      <span className="buttons">
        <button type="submit">Send</button>
        <button type="submit" name="ask">
          Ask the assistant
        </button>
      </span>
    </form>
  )
}

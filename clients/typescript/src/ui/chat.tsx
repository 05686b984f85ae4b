// A conversation: its messages, how far one's own have got, and a field to write in.
//
// - It sticks to the bottom until the reader scrolls up, and then stays where the reader is: a button leads back.
// - A screen reader hears messages as they come, a streamed one when it is whole, and none of the history.

import { type FormEvent, type KeyboardEvent, memo, type ReactElement, type ReactNode, useRef, useState } from 'react'
import type { ChatMessage } from '../helpers/index.js'
import { type ChatView, useChat, useTyping } from '../react/index.js'
import { type Labels, useLabels } from './labels.js'
import { outer, type PartProps, refused } from './part.js'
import { TypingIndicator } from './people.js'
import { Kept } from './press.js'
import { useStickToBottom } from './stick.js'

/** What `ChatThread` takes. */
export interface ChatThreadProps extends PartProps {
  /** Where the conversation is. */
  topic: string
  /** What others see while we are typing. */
  name?: string
  /** Who wrote a message. Default the subject, or another `source` as it is; our own have none. */
  author?: (message: ChatMessage) => ReactNode
  /** How a message is shown. Default its text. */
  render?: (message: ChatMessage) => ReactNode
  /** Whether to show and tell who is typing. Default `true`. */
  typing?: boolean
  /** Whether there is a field to write in. Default `true`. */
  compose?: boolean
  /** Options of `useChat`. */
  options?: Parameters<typeof useChat>[1]
}

/** A conversation on a topic. Enter sends, Shift and Enter begins a line. */
export function ChatThread(props: ChatThreadProps): ReactElement {
  // What is written for one topic must not go to another, and each begins at its bottom.
  return <Thread key={props.topic} {...props} />
}

function Thread(props: ChatThreadProps): ReactElement {
  const chat = useChat(props.topic, props.options)
  const say = useLabels(props.labels)
  const last = chat.messages.at(-1)
  const { log, stuck, jump } = useStickToBottom(chat.messages)
  // Where the reader was when scrolling up: what is behind it is new.
  const [left, setLeft] = useState<string>()
  if (stuck && left !== last?.id) setLeft(last?.id)
  const typing = props.typing ?? true
  const typingOptions = props.name === undefined ? {} : { name: props.name }
  return (
    <Kept {...outer('chat', props)} data-state={chat.error ? 'failed' : stuck ? 'latest' : 'scrolled'}>
      <div
        className="tidings-log"
        ref={log}
        role="log"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
        tabIndex={0}
        aria-label={say.messages}
        aria-live={chat.caughtUp ? 'polite' : 'off'}
        aria-relevant="additions"
      >
        <ol>
          {chat.messages.map((message) => (
            <Message
              key={message.id}
              message={message}
              retry={chat.retry}
              discard={chat.discard}
              labels={say}
              author={props.author}
              render={props.render}
            />
          ))}
        </ol>
      </div>
      {refused(chat.error, say)}
      {!stuck && (
        <button type="button" className="tidings-jump" onClick={jump}>
          {say.jumpToLatest}
          <NewMessages messages={chat.messages} after={left} labels={say} />
        </button>
      )}
      {typing && <TypingIndicator topic={props.topic} options={typingOptions} labels={props.labels} />}
      {(props.compose ?? true) && (
        <Compose chat={chat} labels={say} topic={typing ? props.topic : null} options={typingOptions} onSent={jump} />
      )}
    </Kept>
  )
}

function NewMessages(props: { messages: readonly ChatMessage[]; after: string | undefined; labels: Labels }) {
  const { messages, after, labels } = props
  const count = messages.length - 1 - messages.findLastIndex(({ id }) => id === after)
  return count > 0 ? <span className="tidings-tag"> · {labels.newMessages(count)}</span> : null
}

/** Drawn again when it is another: of five hundred one grows with every frame. */
const Message = memo(function Message(props: {
  message: ChatMessage
  retry: ChatView['retry']
  discard: ChatView['discard']
  labels: Labels
  author: ChatThreadProps['author']
  render: ChatThreadProps['render']
}): ReactElement {
  const { message, retry, discard, labels: say, author, render } = props
  const { id, own, state, time, source, error } = message
  const who = author ? author(message) : own ? undefined : source?.replace(/^urn:tidings:subject:/, '')
  const at = Date.parse(time)
  return (
    <li className="tidings-message" data-own={own} data-state={state} aria-busy={state === 'streaming'}>
      {who && <small className="tidings-quiet">{who}</small>}
      {render ? render(message) : message.text}
      <small className="tidings-quiet">
        {Number.isFinite(at) && <time dateTime={time}>{say.time(at)}</time>}
        {own && state !== 'received' && <span> · {say.status(state)}</span>}
        {error && <span>{`${state === 'failed' ? ': ' : ' · '}${say.failure(error)}`}</span>}
      </small>
      {state === 'failed' && (
        <>
          <button type="button" onClick={() => retry(id)}>
            {say.retry}
          </button>{' '}
          <button type="button" onClick={() => discard(id)}>
            {say.dismiss}
          </button>
        </>
      )}
    </li>
  )
})

function Compose(props: {
  chat: ChatView
  labels: Labels
  topic: string | null
  options: { name?: string }
  onSent: () => void
}): ReactElement {
  const { chat, labels: say } = props
  const { typing, stopped } = useTyping(props.topic, props.options)
  const [text, setText] = useState('')
  const form = useRef<HTMLFormElement>(null)
  const send = (event: FormEvent) => {
    event.preventDefault()
    if (text.trim() === '') return
    chat.send(text)
    setText('')
    stopped()
    props.onSent()
  }
  const onKeyDown = (event: KeyboardEvent) => {
    // Enter also ends the word that an input method proposes.
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return
    event.preventDefault()
    form.current?.requestSubmit()
  }
  return (
    <form className="tidings-compose" ref={form} onSubmit={send}>
      <textarea
        aria-label={say.message}
        placeholder={say.message}
        rows={1}
        value={text}
        onChange={(event) => {
          setText(event.target.value)
          typing()
        }}
        onKeyDown={onKeyDown}
      />
      <button type="submit">{say.send}</button>
    </form>
  )
}

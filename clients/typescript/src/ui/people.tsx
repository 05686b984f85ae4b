// Who is there, and who is typing.

import type { ReactElement, ReactNode } from 'react'
import { usePresence, useTyping } from '../react/index.js'
import type { Member } from '../types.js'
import { useLabels } from './labels.js'
import { outer, type PartProps, refused } from './part.js'

/** What `PresenceList` takes. */
export interface PresenceListProps extends PartProps {
  /** Where. */
  topic: string
  /** What others see of us; without it we are not listed. At most 1 KiB of JSON. */
  data?: unknown
  /** What is shown of a member. Default: `name` of its data, else its subject. */
  name?: (member: Member) => ReactNode
}

/** Who is listed on a topic. Sessions of one subject with the same name are one line. */
export function PresenceList(props: PresenceListProps): ReactElement {
  const { members, ready, error } = usePresence(props.topic, props.data)
  const say = useLabels(props.labels)
  const show = props.name ?? nameOf
  const seen = new Set<string>()
  const people = members.filter((member) => {
    const person = `${member.subject} ${nameOf(member)}`
    return !seen.has(person) && seen.add(person)
  })
  return (
    <div {...outer('presence', props)} data-state={error ? 'failed' : ready ? 'ready' : 'loading'}>
      {refused(error, say)}
      {people.length === 0 ? (
        ready && !error && <p className="tidings-quiet">{say.nobody}</p>
      ) : (
        <ul aria-label={say.people}>
          {people.map((member) => (
            <li key={member.session}>
              <span className="tidings-dot" aria-hidden="true" />
              {show(member)}
            </li>
          ))}
        </ul>
      )}
    </div>
  )
}

function nameOf({ data, subject }: Member): string {
  const name = (data as { name?: unknown } | undefined)?.name
  return typeof name === 'string' && name !== '' ? name : subject
}

/** What `TypingIndicator` takes. */
export interface TypingIndicatorProps extends PartProps {
  /** Where. */
  topic: string
  /** Options of `useTyping`. */
  options?: Parameters<typeof useTyping>[1]
}

/** Who else is typing, in words; empty while nobody is, so that nothing jumps. */
export function TypingIndicator(props: TypingIndicatorProps): ReactElement {
  const { typists } = useTyping(props.topic, props.options)
  const say = useLabels(props.labels)
  const names = typists.map(({ name, key }) => name ?? key)
  return (
    <div {...outer('typing', props)} role="status" data-state={names.length > 0 ? 'typing' : 'silent'}>
      {names.length > 0 && say.typing(names)}
    </div>
  )
}

// A pane of the page: a heading, a line that says what it shows, and what it shows.

import { type ReactElement, type ReactNode, useId } from 'react'

export function Pane(props: { name: string; title: string; about: ReactNode; children: ReactNode }): ReactElement {
  const heading = useId()
  return (
    <section className={`pane pane-${props.name}`} aria-labelledby={heading}>
      <h2 id={heading}>{props.title}</h2>
      <p className="about">{props.about}</p>
      {props.children}
    </section>
  )
}

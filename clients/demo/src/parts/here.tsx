// A switch for what this window does, as a server would elsewhere.

import type { ReactElement, ReactNode } from 'react'

export function Here(props: { on: boolean; onChange: (on: boolean) => void; children: ReactNode }): ReactElement {
  return (
    <label className="here">
      <input type="checkbox" checked={props.on} onChange={(event) => props.onChange(event.target.checked)} />
      <span>{props.children}</span>
    </label>
  )
}

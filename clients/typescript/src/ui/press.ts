// What parts with buttons have in common: what was pressed may be refused, and the button may go.

import { Component, createElement, createRef, type HTMLAttributes, type ReactElement, useState } from 'react'
import { type TidingsError, toError } from '../errors.js'

/** Does what may be refused, and says why it was; the next try forgets that. */
export function useTry(): [TidingsError | undefined, (what: Promise<unknown>) => void] {
  const [error, setError] = useState<TidingsError>()
  const attempt = (what: Promise<unknown>) => {
    setError(undefined)
    what.catch((cause: unknown) => setError(toError(cause, 'internal', 'it failed')))
  }
  return [error, attempt]
}

/** The outermost element of a part whose buttons come and go: the focus of one that goes stays with the part. */
export class Kept extends Component<HTMLAttributes<HTMLDivElement>> {
  readonly #root = createRef<HTMLDivElement>()

  override getSnapshotBeforeUpdate(): boolean {
    return this.#holds()
  }

  override componentDidUpdate(...[, , held]: [unknown, unknown, boolean]): void {
    if (!held || this.#holds()) return
    // What scrolls by keys, where there is such a thing.
    const inside = this.#root.current?.querySelector<HTMLElement>('[tabindex="0"]')
    ;(inside ?? this.#root.current)?.focus()
  }

  override render(): ReactElement {
    return createElement('div', { tabIndex: -1, ...this.props, ref: this.#root })
  }

  #holds(): boolean {
    return this.#root.current?.contains(document.activeElement) ?? false
  }
}

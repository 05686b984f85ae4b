// `tidings/terminal`: a terminal on a page. An entry of its own, so that only who shows terminals needs @xterm/xterm,
// which is loaded when the first one is shown. Its stylesheet, `@xterm/xterm/css/xterm.css`, is the page's to load.

'use client'

import { type ReactElement, useEffect, useRef, useState } from 'react'
import { useTerminal } from '../react/index.js'
import { useLabels } from './labels.js'
import { outer, type PartProps, refused } from './part.js'
import { Screen } from './screen.js'

/** What `Terminal` takes. */
export interface TerminalProps extends Omit<PartProps, 'id'> {
  /** The terminal's id: what is on `terminals.<id>`. */
  id: string
  /** Takes what is typed. Default: nothing can be typed. */
  onInput?: (text: string) => void
  /** Whether screen readers can read the screen; it costs some speed. Default `true`. */
  screenReader?: boolean
  /**
   * The nonce of the page's Content-Security-Policy, where it has one for styles: xterm makes style elements. Colours of 24
   * bits are style attributes, which such a policy forbids: they are not shown then.
   */
  nonce?: string | undefined
  /** Options of `useTerminal`. */
  options?: Parameters<typeof useTerminal>[1]
}

/**
 * What a terminal shows, drawn by @xterm/xterm, whose stylesheet the page loads: `import '@xterm/xterm/css/xterm.css'`.
 * Until that is loaded, and where it cannot be, the lines are shown as plain text. Give it a height by CSS; 20rem else.
 */
export function Terminal(props: TerminalProps): ReactElement {
  const { id, options, onInput, nonce, screenReader = true } = props
  const { lines, position, read, closed, exit, caughtUp, error } = useTerminal(id, options)
  const say = useLabels(props.labels)
  const host = useRef<HTMLDivElement>(null)
  const input = useRef(onInput)
  const [screen, setScreen] = useState<Screen>()
  const scrollback = options?.maxLines ?? 5_000
  const writable = onInput !== undefined
  useEffect(() => {
    input.current = onInput
  })
  useEffect(() => {
    let gone = false
    let made: Screen | undefined
    const open = async () => {
      const { Terminal } = await import('@xterm/xterm')
      if (gone || !host.current) return
      const take = writable ? (text: string) => input.current?.(text) : undefined
      made = new Screen(Terminal, host.current, { screenReader, scrollback, nonce, onInput: take })
      setScreen(made)
    }
    open().catch((cause: unknown) => console.warn('tidings: without @xterm/xterm a terminal is plain text', cause))
    return () => {
      gone = true
      made?.dispose()
      setScreen(undefined)
    }
  }, [screenReader, scrollback, nonce, writable])
  // The position says that there is more to read.
  useEffect(() => screen?.draw(read), [screen, read, position])
  return (
    <section
      {...outer('terminal', { ...props, id: undefined })}
      aria-label={say.terminal(id)}
      data-state={error ? 'failed' : closed ? 'closed' : caughtUp ? 'live' : 'loading'}
    >
      <div className="tidings-screen" ref={host}>
        {!screen && <pre>{lines.slice(-200).map(plain).join('\n')}</pre>}
      </div>
      {refused(error, say)}
      <p role="status">{closed && say.ended(exit)}</p>
    </section>
  )
}

// Sequences that begin with ESC: for colours and the cursor, for titles, and short ones; then what is left of controls.
const ESC = String.fromCharCode(27)
const CONTROLS = new RegExp(
  `${ESC}(?:\\[[0-?]*[ -/]*[@-~]|\\][^\\p{Cc}]*(?:${ESC}\\\\|\\p{Cc})?|.)|(?!\\t)\\p{Cc}`,
  'gu',
)

/** A line without colours and cursor movements. */
function plain(line: string): string {
  return line.replace(CONTROLS, '')
}

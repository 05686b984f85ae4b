import { act, cleanup, screen } from '@testing-library/react'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { useTerminal } from '../../src/react/index.js'
import { Terminal } from '../../src/ui/terminal.js'
import { event } from '../react/fake.js'
import { frame, inAct, show } from '../react/setup.js'

// happy-dom has no screen to draw on: what is written to xterm is looked at here, what it looks like in Chromium.
const made: FakeXterm[] = []
class FakeXterm {
  cols = 80
  rows = 24
  written = ''
  writes: (() => void)[] = []
  disposed = false
  typed: ((text: string) => void) | undefined
  keys: ((event: { key: string; shiftKey: boolean }) => boolean) | undefined
  constructor(readonly options: { disableStdin: boolean; scrollback: number }) {
    made.push(this)
  }
  onData = (listener: (text: string) => void) => {
    this.typed = listener
  }
  attachCustomKeyEventHandler = (handler: (event: { key: string; shiftKey: boolean }) => boolean) => {
    this.keys = handler
  }
  open = () => {}
  resize = () => {}
  reset = () => {
    this.written += '[reset]'
  }
  write = (text: string, done: () => void) => {
    this.written += text
    this.writes.push(done)
  }
  dispose = () => {
    this.disposed = true
  }
}
let missing = false
vi.mock('@xterm/xterm', () => {
  return {
    get Terminal() {
      if (missing) throw new Error('not installed')
      return FakeXterm
    },
  }
})

afterEach(() => {
  cleanup()
  vi.restoreAllMocks()
  made.length = 0
  missing = false
})

const output = (data: string, topic = 'terminals.t1') => event({ topic, type: 'terminal.output', data })
const live = () => made.filter(({ disposed }) => !disposed)
const loaded = async () => {
  await vi.waitFor(() => expect(live()).toHaveLength(1))
  await act(frame)
}

describe('Terminal', () => {
  it('shows lines as plain text until it can draw', async () => {
    vi.spyOn(console, 'warn').mockImplementation(() => {})
    missing = true
    const { client, container } = show(<Terminal id="t1" />)
    await inAct(() => client.deliver(output('\u001b[1;32mok\u001b[0m done\r\n\u001b]0;title\u0007next')))
    expect(container.querySelector('pre')?.textContent).toBe('ok done\nnext')
    expect(console.warn).toHaveBeenCalled()
    expect(screen.getByRole('region', { name: 'Terminal t1' })).toBeDefined()
  })

  it('draws everything once, and no more than the screen can take', async () => {
    const { client, unmount } = show(<Terminal id="t1" options={{ maxLines: 100 }} />)
    await loaded()
    const [xterm] = live()
    expect(xterm?.options).toMatchObject({ disableStdin: true, scrollback: 100 })
    await inAct(() => client.deliver(output('one\n')))
    await inAct(() => client.deliver(output('two\n')))
    await inAct(() => client.deliver(output('three\n')))
    // The first piece is not drawn yet: the others wait.
    expect(xterm?.written).toBe('one\n')
    act(() => xterm?.writes[0]?.())
    expect(xterm?.written).toBe('one\ntwo\nthree\n')
    unmount()
    expect(live()).toHaveLength(0)
    await frame()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })

  it('begins anew with another terminal', async () => {
    const { client, rerender } = show(<Terminal id="t1" />)
    await loaded()
    await inAct(() => client.deliver(output('one\n')))
    act(() => live()[0]?.writes.at(-1)?.())
    rerender(<Terminal id="t2" />)
    await inAct(() => client.deliver(output('other\n', 'terminals.t2')))
    expect(live()[0]?.written).toBe('one\n[reset]other\n')
  })

  it('draws all of another terminal that is there already', async () => {
    const Lines = () => <i>{useTerminal('t2').lines.length}</i>
    const both = (id: string) => (
      <>
        <Terminal id={id} />
        <Lines />
      </>
    )
    const { client, rerender } = show(both('t1'))
    await loaded()
    await inAct(() => {
      client.deliver(output('one\n'))
      client.deliver(output('longer than one\n', 'terminals.t2'))
    })
    act(() => live()[0]?.writes.at(-1)?.())
    rerender(both('t2'))
    await inAct(() => {})
    expect(live()[0]?.written).toBe('one\n[reset]longer than one\n')
  })

  it('takes input where somebody wants it, and never keeps the focus', async () => {
    const typed: string[] = []
    const { rerender } = show(<Terminal id="t1" />)
    await loaded()
    const tab = { key: 'Tab', shiftKey: false }
    expect(live()[0]?.keys?.(tab)).toBe(false)
    rerender(<Terminal id="t1" onInput={(text) => typed.push(text)} />)
    await loaded()
    live()[0]?.typed?.('ls')
    expect(typed).toEqual(['ls'])
    expect(live()[0]?.options.disableStdin).toBe(false)
    expect(live()[0]?.keys?.(tab)).toBe(true)
    expect(live()[0]?.keys?.({ ...tab, shiftKey: true })).toBe(false)
  })

  it('says that its program has ended', async () => {
    const { client } = show(<Terminal id="t1" />)
    await inAct(() => client.deliver(event({ topic: 'terminals.t1', type: 'terminal.closed', data: { exit: 2 } })))
    expect(screen.getByRole('status').textContent).toBe('Ended (2)')
    expect(screen.getByRole('region').getAttribute('data-state')).toBe('closed')
  })
})

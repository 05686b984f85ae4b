// The page: a head that says how it stands, what to try, and the panes.

import { type FormEvent, type ReactElement, useState } from 'react'
import { ConnectionStatus, NotificationCenter, OutboxBadge, PresenceList, Toaster } from 'tidings/ui'
import { useStore } from 'zustand'
import { me } from './me'
import { AgentsPane } from './panes/agents'
import { ChatPane } from './panes/chat'
import { ConnectionPane } from './panes/connection'
import { LogPane } from './panes/log'
import { NoticesPane } from './panes/notices'
import { PlanPane } from './panes/plan'
import { TasksPane } from './panes/tasks'
import { NOTIFICATIONS, USER } from './work/notify'

const WINDOWS = 'windows.demo'

export function App(): ReactElement {
  return (
    <>
      <Head />
      <main>
        <Intro />
        <ConnectionPane />
        <NoticesPane />
        <ChatPane />
        <PlanPane />
        <TasksPane />
        <AgentsPane />
        <LogPane />
      </main>
      <Toaster filter={NOTIFICATIONS} />
    </>
  )
}

function Head(): ReactElement {
  const { name } = useStore(me)
  return (
    <header>
      <h1>tidings</h1>
      <Name />
      <PresenceList topic={WINDOWS} data={{ name }} />
      <span className="state">
        <OutboxBadge />
        <ConnectionStatus />
        <NotificationCenter name={USER} />
      </span>
    </header>
  )
}

/** Others see the name when it is whole: each is a line in the list of who is there. */
function Name(): ReactElement {
  const { name } = useStore(me)
  const [typed, setTyped] = useState(name)
  const rename = (event: FormEvent) => {
    event.preventDefault()
    const wanted = typed.trim() || name
    setTyped(wanted)
    me.setState({ name: wanted })
  }
  return (
    <form className="name" onSubmit={rename} onBlur={rename}>
      <label htmlFor="name">This window is</label>
      <input id="name" type="text" maxLength={30} value={typed} onChange={({ target }) => setTyped(target.value)} />
    </form>
  )
}

function Intro(): ReactElement {
  return (
    <section className="intro" aria-labelledby="intro">
      <h2 id="intro">Try to lose something</h2>
      <p>
        All that you see is read from one log at the broker. The assistant, the worker and the agents are no servers:
        they run in the windows of this page, over the same topics as you.
      </p>
      <ol>
        <li>
          <a href="/" target="_blank" rel="noopener noreferrer">
            Open a second window
          </a>{' '}
          beside this one, and write, edit, start and read in both.
        </li>
        <li>Ask the assistant something, and change the transport or cut the network while it answers.</li>
        <li>
          Kill the broker (<kbd>Ctrl</kbd>+<kbd>C</kbd>, or <code>kill -9</code>), go on, and start it again with the
          same data.
        </li>
        <li>Cut the network, go on, and reload this page: what you have sent meanwhile outlives it.</li>
      </ol>
      <p>Nothing is lost and nothing comes twice: the last pane counts.</p>
    </section>
  )
}

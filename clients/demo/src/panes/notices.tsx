// Notifications: sent here, counted in the heads of all windows, read in any of them.

import { type ReactElement, useState } from 'react'
import { Pane } from '../parts/pane'
import { notify } from '../work/notify'

const LATER_MS = 5_000

export function NoticesPane(): ReactElement {
  const [sent, setSent] = useState(0)
  const number = () => {
    setSent(sent + 1)
    return sent + 1
  }
  return (
    <Pane
      name="notices"
      title="Notices"
      about="One inbox for all windows. Read them in one, and they are read in the others; a window that is opened later knows it too."
    >
      <p className="buttons">
        <button
          type="button"
          onClick={() => notify({ title: `Notification ${number()}`, body: 'Nothing to do.', level: 'info' })}
        >
          Notify
        </button>
        <button
          type="button"
          onClick={() =>
            notify({ title: `Urgent ${number()}`, body: 'Stays until dismissed.', level: 'error' }, 'urgent')
          }
        >
          Notify urgently
        </button>
        <button
          type="button"
          onClick={() =>
            notify({ title: `Reminder ${number()}`, level: 'info' }, 'normal', {
              deliverAt: new Date(Date.now() + LATER_MS),
            })
          }
        >
          Notify in five seconds
        </button>
      </p>
    </Pane>
  )
}

// Notifications of the one user of this demo, whose inbox all windows show.

import type { Priority, PublishOptions } from 'tidings'
import type { Notification } from 'tidings/ui'
import { client } from '../client'

export const USER = 'demo'
export const NOTIFICATIONS = `users.${USER}.notifications`

export function notify(
  what: Pick<Notification, 'title' | 'level'> & { body?: string },
  priority: Priority = 'normal',
  options: Pick<PublishOptions, 'deliverAt'> = {},
): void {
  client.publish(NOTIFICATIONS, what, { type: 'notification', priority, ...options }).catch(() => undefined)
}

// `tidings/ui`: parts for pages, made of the hooks. Their looks are in `tidings/ui.css`, which is optional: without it
// they are plain HTML with `data-state`, `data-priority`, `data-level` and `data-transport` to style by.

'use client'

export type { AgentListProps } from './agents.js'
export { AgentList } from './agents.js'
export type { NotificationCenterProps } from './center.js'
export { NotificationCenter } from './center.js'
export type { ChatThreadProps } from './chat.js'
export { ChatThread } from './chat.js'
export type { OutboxBadgeProps } from './connection.js'
export { ConnectionStatus, OutboxBadge } from './connection.js'
export type { Labels, LabelsProviderProps } from './labels.js'
export { english, LabelsProvider, useLabels } from './labels.js'
export type { ActionProps, Notification, NotificationAction } from './notification.js'
export { notificationOf } from './notification.js'
export type { OperationProgressProps } from './operation.js'
export { OperationProgress } from './operation.js'
export type { PartProps } from './part.js'
export type { PresenceListProps, TypingIndicatorProps } from './people.js'
export { PresenceList, TypingIndicator } from './people.js'
export type { ToasterProps } from './toaster.js'
export { Toaster } from './toaster.js'

// Helpers over conventions of topics: import what you use, the rest is left out of the bundle.

export {
  type ScrollbackOptions,
  type Terminal,
  TerminalBuffer,
  type TerminalOptions,
  type TerminalOutput,
  type TerminalSnapshot,
  type TerminalWriter,
  type TerminalWriterOptions,
  terminal,
  terminalWriter,
} from '../terminal/terminal.js'
export { type Agent, type AgentOptions, agent, type CommandContext } from './agent.js'
export {
  type AgentInfo,
  type Agents,
  type AgentsOptions,
  type AgentsSnapshot,
  agents,
  type InterruptOptions,
} from './agents.js'
export {
  type Assembled,
  type AssembledMessage,
  type AssembleOptions,
  type AssemblyBounds,
  assemble,
  type StreamedMessageOptions,
  streamedMessage,
} from './assemble.js'
export { type Chat, type ChatMessage, type ChatOptions, type ChatSnapshot, type ChatState, chat } from './chat.js'
export { type ForwardConsoleOptions, forwardConsole, type LogEntry, type LogLevel } from './forward-console.js'
export { type Inbox, type InboxItem, type InboxOptions, type InboxSnapshot, inbox } from './inbox.js'
export { listed, type MembersOptions, type MembersSnapshot, members } from './members.js'
export {
  type CancelRequest,
  type Operation,
  type OperationSnapshot,
  type OperationStatus,
  type OperationsOptions,
  type OperationsSnapshot,
  type OperationWork,
  operation,
  operations,
  type ProgressOptions,
  type StartOptions,
} from './operation.js'
export type { PipeOptions } from './pipe.js'
export { type AnswerOptions, type ReplyOptions, type Responder, reply } from './reply.js'
export {
  decrypt,
  encrypt,
  KEY_HEADER,
  SEALED,
  SealedError,
  type SealedReason,
  type SealingKeys,
  sealingKeys,
} from './sealed.js'
export { type StreamWriter, type StreamWriterOptions, streamWriter } from './stream-writer.js'
export {
  type Changes,
  pathOf,
  type Structure,
  type StructureOptions,
  type StructureSnapshot,
  structure,
  valueAt,
} from './structure.js'
export { type Typing, type TypingOptions, type Typist, typing } from './typing.js'
export type { Watched, WatchOptions } from './watch.js'

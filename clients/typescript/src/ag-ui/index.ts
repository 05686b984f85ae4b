// AG-UI over tidings: runs that survive reloads.

export { TidingsAgent, type TidingsAgentConfig } from './agent.js'
export { localRuns, memoryRuns, type RunStore, type StoredRun } from './runs.js'
export { type RunContext, type ServeRunOptions, serveRun } from './serve.js'

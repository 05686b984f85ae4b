// A broker as a process. TIDINGS_BIN names it; else the debug build of this repository.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url))
const BIN = resolve(process.env.TIDINGS_BIN ?? join(ROOT, 'target/debug/tidings'))
// To the broker a TIDINGS_ variable is a setting, and one it does not know is an error.
const ENV = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDINGS_')))

export interface Broker {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string
  readonly port: number
  readonly data: string
  log(): string
  /** kill -9. */
  kill(): Promise<void>
  /** Asks it to stop. */
  stop(): Promise<void>
}

const running = new Set<ChildProcess>()
const folders = new Set<string>()

export interface BrokerOptions {
  /** The data of one that ran before. */
  data?: string
  /** The port of one that ran before. */
  port?: number
  flags?: readonly string[]
}

/** Starts a broker and waits until it listens. */
export async function startBroker({ data, port = 0, flags = [] }: BrokerOptions = {}): Promise<Broker> {
  const folder = data ?? (await mkdtemp(join(tmpdir(), 'tidings-ts-')))
  folders.add(folder)
  const args = ['serve', '--data', folder, '--listen', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0', ...flags]
  const child = spawn(BIN, args, { env: ENV, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  const exited = once(child, 'close')
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    running.delete(child)
    child.kill(signal)
    await exited
  }
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(/^listening public=http:\/\/(\S+):(\d+) /)
    if (!found) continue
    const [, host, number] = found
    return {
      url: `http://${host}:${number}`,
      port: Number(number),
      data: folder,
      log: () => log,
      kill: () => end('SIGKILL'),
      stop: () => end('SIGTERM'),
    }
  }
  await exited
  throw new Error(`the broker ended before it listened:\n${log}`)
}

/** Ends those that are left, and takes away what they have written. */
export async function stopBrokers(): Promise<void> {
  await Promise.all(
    [...running].map(async (child) => {
      const exited = once(child, 'close')
      child.kill('SIGKILL')
      await exited
    }),
  )
  running.clear()
  await Promise.all([...folders].map((folder) => rm(folder, { recursive: true, force: true })))
  folders.clear()
}

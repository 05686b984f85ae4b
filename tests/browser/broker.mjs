// A broker as a process, for the tests in this folder. TIDINGS_BIN names it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const BIN = resolve(process.env.TIDINGS_BIN ?? join(ROOT, 'target/debug/tidings'))
// To the broker a TIDINGS_ variable is a setting, and one it does not know is an error.
const ENV = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDINGS_')))

const brokers = new Set()
let scratch

/** Starts a broker and waits until it listens. */
export async function start({ data, listen = '127.0.0.1:0', admin = '127.0.0.1:0', flags = ['--demo'] }) {
  scratch ??= await mkdtemp(join(tmpdir(), 'tidings-browser-'))
  const args = ['serve', '--data', join(scratch, data), '--listen', listen, '--admin', admin, ...flags]
  const child = spawn(BIN, args, { env: ENV, stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text) => { log += text })
  const broker = { child, exited: once(child, 'close') }
  brokers.add(broker)
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(/^listening public=http:\/\/(\S+) admin=http:\/\/(\S+)$/)
    if (found) return Object.assign(broker, { listen: found[1], admin: found[2], log: () => log })
  }
  await broker.exited
  throw new Error(`the broker ended before it listened:\n${log}`)
}

/** Asks it to stop; its exit code. */
export async function stop(broker) {
  brokers.delete(broker)
  broker.child.kill('SIGTERM')
  return (await broker.exited)[0]
}

/** kill -9. */
export async function kill(broker) {
  brokers.delete(broker)
  broker.child.kill('SIGKILL')
  await broker.exited
}

/** Ends those that are left, and takes away what they have written. */
export async function stopAll() {
  await Promise.all([...brokers].map(kill))
  if (scratch) await rm(scratch, { recursive: true, force: true })
}

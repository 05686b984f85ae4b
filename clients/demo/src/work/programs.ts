// What the agents can do: small programs that write to a terminal.

import { wait } from './wait'

/** What a program is given. */
export interface Shell {
  write(text: string): Promise<void>
  /** Says how far it is, for all to see. */
  status(message: string): void
  readonly signal: AbortSignal
}

type Program = (shell: Shell, argument: string) => Promise<string>

const green = (text: string): string => `\x1b[32m${text}\x1b[0m`
const red = (text: string): string => `\x1b[31m${text}\x1b[0m`
const bold = (text: string): string => `\x1b[1m${text}\x1b[0m`

const CRATES = ['proto', 'storage', 'clock', 'log', 'broker', 'auth', 'session', 'net', 'server', 'cli']
const COUNT_MAX = 10_000

const programs: Readonly<Record<string, Program>> = {
  async build({ write, status, signal }) {
    for (const [at, crate] of CRATES.entries()) {
      status(`${at + 1} of ${CRATES.length}`)
      await write(`   ${green('Compiling')} ${crate}`)
      for (let dot = 0; dot < 6; dot++) {
        await wait(90, signal)
        await write('.')
      }
      await write('\n')
    }
    return 'built'
  },
  async test({ write, status, signal }) {
    for (const [at, crate] of CRATES.entries()) {
      await wait(350, signal)
      status(`${at + 1} of ${CRATES.length}`)
      await write(`test ${crate.padEnd(10)} ${green('ok')}\n`)
    }
    return `${CRATES.length} passed`
  },
  async count({ write, status, signal }, argument) {
    const to = Math.min(COUNT_MAX, Math.max(1, Number.parseInt(argument, 10) || 100))
    for (let n = 1; n <= to; n++) {
      await wait(100, signal)
      if (n % 10 === 0) status(`${n} of ${to}`)
      await write(`${n}${n % 10 === 0 ? '\n' : ' '}`)
    }
    return `counted to ${to}`
  },
  async fail({ write, signal }) {
    await wait(500, signal)
    await write(`${red('error')}: this program always fails\n`)
    throw new Error('this program always fails')
  },
}

export const PROGRAMS = Object.keys(programs)

/** Runs a line; what it gives, or throws, is written to the terminal too. */
export async function runLine(line: string, shell: Shell): Promise<string> {
  const [name = '', argument = ''] = line.trim().split(/\s+/)
  await shell.write(`${bold(`$ ${line}`)}\n`)
  try {
    const program = Object.hasOwn(programs, name) ? programs[name] : undefined
    if (program === undefined) throw new Error(`unknown: ${name}. There are ${PROGRAMS.join(', ')}.`)
    const result = await program(shell, argument)
    await shell.write(`${result}\n`)
    return result
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    await shell.write(shell.signal.aborted ? `${red('^C')} ${message}\n` : `${red('failed')}: ${message}\n`)
    throw cause
  }
}

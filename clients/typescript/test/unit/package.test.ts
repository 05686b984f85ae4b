// What the package says of itself, and what it exports for others to name.

import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, expectTypeOf, test } from 'vitest'
import { type ErrorDetails, TidingsError } from '../../src/index.js'

const root = new URL('../../../../', import.meta.url)

test('the package comes from the repository that the broker comes from', () => {
  const cargo = readFileSync(new URL('Cargo.toml', root), 'utf8').match(/^repository = "(.+)"$/m)?.[1]
  const here = new URL('../../package.json', import.meta.url)
  const { repository } = JSON.parse(readFileSync(here, 'utf8'))
  expect(repository).toEqual({ type: 'git', url: `git+${cargo}.git`, directory: 'clients/typescript' })
  const there = new URL(`${repository.directory}/package.json`, root)
  expect(existsSync(there) && fileURLToPath(there)).toBe(fileURLToPath(here))
})

test('what else an error carries can be named', () => {
  expectTypeOf<ConstructorParameters<typeof TidingsError>[2]>().toEqualTypeOf<ErrorDetails | undefined>()
  const details: ErrorDetails = { retryAfterMs: 50, cause: new Error('full') }
  expect(new TidingsError('unavailable', 'later', details)).toMatchObject({ ...details, retryable: true })
})

// A server component that imports them gets a reference to what runs in the browser.
test.each(['react/index.ts', 'ui/index.ts', 'ui/terminal.tsx'])('%s says that it is of the client', (path) => {
  const code = readFileSync(new URL(`../../src/${path}`, import.meta.url), 'utf8')
  expect(code.replace(/^(\/\/.*)?\n/gm, '')).toMatch(/^'use client'\n/)
})

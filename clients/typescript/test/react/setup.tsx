// What tests of components have in common.

import { act, render } from '@testing-library/react'
import { type ReactNode, StrictMode } from 'react'
import { afterEach, beforeEach, expect, vi } from 'vitest'
import { TidingsProvider } from '../../src/react/index.js'
import { FakeClient } from './fake.js'

/** Fails the test on every warning: React tells by them what it would not do in production. */
export function noWarnings(): void {
  beforeEach(() => {
    vi.spyOn(console, 'error')
    vi.spyOn(console, 'warn')
  })
  afterEach(() => {
    expect(vi.mocked(console.error).mock.calls).toEqual([])
    expect(vi.mocked(console.warn).mock.calls).toEqual([])
    vi.restoreAllMocks()
  })
}

/** Renders in Strict Mode, below a provider. */
export function show(children: ReactNode, client = new FakeClient()) {
  const wrapper = ({ children }: { children: ReactNode }) => (
    <StrictMode>
      <TidingsProvider client={client.as()}>{children}</TidingsProvider>
    </StrictMode>
  )
  return { ...render(children, { wrapper }), client }
}

/** Does something, and waits until the frame after it is rendered. */
export async function inAct(what: () => void): Promise<void> {
  await act(async () => {
    what()
    await frame()
  })
}

/** The next frame has been rendered, and what was to be closed one macrotask later is. */
export async function frame(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve))
  await new Promise((resolve) => requestAnimationFrame(resolve))
  await new Promise((resolve) => setTimeout(resolve))
}

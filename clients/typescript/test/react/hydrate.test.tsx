import { act, cleanup } from '@testing-library/react'
import { StrictMode } from 'react'
import { hydrateRoot } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, expect, it } from 'vitest'
import { TidingsProvider } from '../../src/react/index.js'
import { ChatThread, ConnectionStatus, NotificationCenter, Toaster } from '../../src/ui/index.js'
import { FakeClient } from './fake.js'
import { frame, noWarnings } from './setup.js'

noWarnings()
afterEach(cleanup)

it('takes over what a server has rendered, as disconnected, and then shows what is', async () => {
  const client = new FakeClient()
  const page = (
    <StrictMode>
      <TidingsProvider client={client.as()}>
        <ConnectionStatus />
        <ChatThread topic="chat.1" />
        <NotificationCenter name="ann" />
        <Toaster filter="toasts.1" />
      </TidingsProvider>
    </StrictMode>
  )
  const host = document.createElement('div')
  host.innerHTML = renderToString(page)
  document.body.append(host)
  expect(host.textContent).toContain('Offline')
  const mismatches: unknown[] = []
  const root = await act(async () => {
    const root = hydrateRoot(host, page, { onRecoverableError: (error) => mismatches.push(error) })
    await frame()
    return root
  })
  expect(mismatches).toEqual([])
  expect(host.textContent).toContain('Connected')
  expect(client.subscriptions.length).toBeGreaterThan(0)
  act(() => root.unmount())
  await frame()
  await frame()
  expect(client.subscriptions).toHaveLength(0)
  expect(client.emitter.count()).toBe(0)
  host.remove()
})

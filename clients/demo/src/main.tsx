import '@xterm/xterm/css/xterm.css'
import 'tidings/ui.css'
import './app.css'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { TidingsProvider } from 'tidings/react'
import { App } from './app'
import { client } from './client'
import { startAssistant } from './work/assistant'
import { startFleet } from './work/fleet'
import { startWorker } from './work/worker'

startAssistant()
startWorker()
startFleet()

const root = document.getElementById('root')
if (root) {
  createRoot(root).render(
    <StrictMode>
      <TidingsProvider client={client}>
        <App />
      </TidingsProvider>
    </StrictMode>,
  )
}

// WebSockets over the line, for the option `WebSocket` of the client.

import { Lane } from './lane'
import type { Line } from './line'

/** A class of sockets that go over `line`: as much of a WebSocket as the client uses. */
export function socketsOver(line: Line): typeof WebSocket {
  class LineSocket {
    onopen: (() => void) | null = null
    onmessage: ((event: MessageEvent) => void) | null = null
    onclose: ((event: { code: number; reason: string }) => void) | null = null
    onerror: (() => void) | null = null
    readonly #up = new Lane(line)
    readonly #down = new Lane(line)
    readonly #socket: WebSocket | undefined
    readonly #release: () => void = () => undefined
    #over = false

    constructor(url: string, protocol?: string) {
      if (!line.lets('websocket')) {
        // As the platform does: told later, by an event.
        queueMicrotask(() => this.#lost())
        return
      }
      const socket = new WebSocket(url, protocol)
      this.#socket = socket
      this.#release = line.hold('websocket', () => this.#lost())
      socket.onopen = () => this.#arrives(0, () => this.onopen?.())
      socket.onmessage = (event) => this.#arrives(sizeOf(event.data), () => this.onmessage?.(event))
      socket.onclose = ({ code, reason }) => this.#arrives(0, () => this.#ended(code, reason))
    }

    set binaryType(type: BinaryType) {
      if (this.#socket) this.#socket.binaryType = type
    }

    send(data: string | Uint8Array<ArrayBuffer>): void {
      if (this.#over) return
      const sent = this.#up.send(sizeOf(data), () => {
        if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(data)
      })
      if (!sent) this.#lost()
    }

    close(code?: number): void {
      // What was sent before goes before. The other side hears of it as late as of everything.
      if (!this.#over) this.#up.send(0, () => this.#shut(code))
    }

    #arrives(bytes: number, arrive: () => void): void {
      if (this.#over) return
      if (!this.#down.send(bytes, arrive)) this.#lost()
    }

    /** Gone without a word, as when a cable is pulled. */
    #lost(): void {
      this.#ended(1006, '')
    }

    #ended(code: number, reason: string): void {
      if (this.#over) return
      this.#shut()
      this.onclose?.({ code, reason })
    }

    #shut(code?: number): void {
      this.#over = true
      this.#release()
      this.#up.close()
      this.#down.close()
      const socket = this.#socket
      if (!socket) return
      socket.onopen = socket.onmessage = socket.onclose = null
      socket.close(code)
    }
  }
  return LineSocket as unknown as typeof WebSocket
}

function sizeOf(data: unknown): number {
  if (typeof data === 'string') return data.length
  return data instanceof ArrayBuffer || data instanceof Uint8Array ? data.byteLength : 0
}

// What a terminal has shown: so many lines and characters, and who has drawn how much of it. No subscription, no clock.

/** Bounds of what is kept. */
export interface ScrollbackOptions {
  /** The most lines. Default 5,000. */
  maxLines?: number
  /** The most characters. Default 1,000,000. */
  maxChars?: number
}

/** What a reader of a terminal has not drawn. */
export interface TerminalOutput {
  /** The text, as it was written: with control sequences. */
  readonly text: string
  /** Where to read on from. */
  readonly position: number
  /** The reader was too slow, or the terminal was cleared: `text` is all there is, for an empty screen. */
  readonly reset: boolean
}

/** A line is kept in pieces of so many characters or a few more: what adds to it copies one of them. */
const PIECE_CHARS = 4_096

/** A bounded text that grows at its end. */
export class TerminalBuffer {
  readonly #maxLines: number
  readonly #maxChars: number
  /** Lines with their ends, long ones in several pieces; the last one may have none. */
  #pieces: string[] = []
  /** Pieces before this one are gone; they are taken out in bulk. */
  #head = 0
  /** How many lines have their end here. */
  #ends = 0
  #chars = 0
  /** How many characters went before the first that is here. */
  #before = 0
  #dropped = 0
  #shown: readonly string[] | undefined

  /** An empty one with these bounds. */
  constructor({ maxLines = 5_000, maxChars = 1_000_000 }: ScrollbackOptions = {}) {
    this.#maxLines = Math.max(1, maxLines)
    this.#maxChars = Math.max(1, maxChars)
  }

  /** Behind the last character. Rising, also over `clear`. */
  get end(): number {
    return this.#before + this.#chars
  }

  /** How many characters are here. */
  get chars(): number {
    return this.#chars
  }

  /** How many lines have gone. */
  get dropped(): number {
    return this.#dropped
  }

  /** Adds text at the end; the oldest lines go where there is no room. */
  write(text: string): void {
    if (text === '') return
    this.#shown = undefined
    this.#chars += text.length
    for (let at = 0; at < text.length; ) {
      const end = text.indexOf('\n', at)
      const piece = end < 0 ? text.slice(at) : text.slice(at, end + 1)
      at += piece.length
      if (end >= 0) this.#ends++
      const last = this.#pieces.at(-1) ?? ''
      const isOver = this.#pieces.length === this.#head || last.endsWith('\n') || last.length >= PIECE_CHARS
      if (isOver) this.#pieces.push(piece)
      else this.#pieces[this.#pieces.length - 1] = last + piece
    }
    this.#bound()
  }

  /** Forgets all; readers begin anew. */
  clear(): void {
    // A place that no reader has: one that has drawn all must notice it too.
    this.#before += this.#chars + 1
    this.#pieces = []
    this.#head = 0
    this.#ends = 0
    this.#chars = 0
    this.#dropped = 0
    this.#shown = undefined
  }

  /** What was written behind `position`; 0 for all. */
  read(position: number): TerminalOutput {
    if (position === this.end) return { text: '', position, reset: false }
    if (position < this.#before || position > this.end)
      return { text: this.#from(this.#before), position: this.end, reset: position !== 0 || this.#before > 0 }
    return { text: this.#from(position), position: this.end, reset: false }
  }

  /** The lines, without their ends; the last one is what is being written. The same list until something is written. */
  lines(): readonly string[] {
    if (this.#shown !== undefined) return this.#shown
    const shown: string[] = []
    let line = ''
    for (const piece of this.#pieces.slice(this.#head)) {
      line += piece
      if (!piece.endsWith('\n')) continue
      shown.push(line.replace(/\r?\n$/, ''))
      line = ''
    }
    if (line !== '') shown.push(line)
    this.#shown = shown
    return this.#shown
  }

  #from(position: number): string {
    // From the end: readers are seldom far behind.
    const found: string[] = []
    let at = this.end
    for (let piece = this.#pieces.length - 1; piece >= this.#head && at > position; piece--) {
      const text = this.#pieces[piece] ?? ''
      at -= text.length
      found.push(at < position ? text.slice(position - at) : text)
    }
    return found.reverse().join('')
  }

  #bound(): void {
    const lines = (): number => this.#ends + (this.#pieces.at(-1)?.endsWith('\n') ? 0 : 1)
    while (lines() > this.#maxLines || (this.#chars > this.#maxChars && this.#pieces.length - this.#head > 1)) {
      const gone = this.#pieces[this.#head] ?? ''
      this.#pieces[this.#head++] = ''
      this.#chars -= gone.length
      this.#before += gone.length
      if (!gone.endsWith('\n')) continue
      this.#ends--
      this.#dropped++
    }
    // One piece that is longer than everything keeps its end.
    const only = this.#pieces[this.#head]
    if (this.#chars > this.#maxChars && only !== undefined) {
      const gone = this.#chars - this.#maxChars
      this.#pieces[this.#head] = only.slice(gone)
      this.#chars -= gone
      this.#before += gone
    }
    if (this.#head > 1_000 && this.#head * 2 > this.#pieces.length) {
      this.#pieces = this.#pieces.slice(this.#head)
      this.#head = 0
    }
  }
}

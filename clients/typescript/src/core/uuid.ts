let lastMs = 0
let counter = 0

const hex = (number: number, digits: number): string => number.toString(16).padStart(digits, '0')

/**
 * A UUIDv7: in the order in which this page made them, also within a millisecond and where the clock is set back. The
 * 12 bits behind the time count, the other 62 are random.
 */
export function uuidv7(nowMs: number = Date.now()): string {
  if (nowMs > lastMs) {
    lastMs = nowMs
    counter = 0
  } else if (++counter > 0xfff) {
    lastMs++
    counter = 0
  }
  const [variant = 0, ...random] = crypto.getRandomValues(new Uint16Array(4))
  const words = [0x7000 + counter, 0x8000 | (variant & 0x3fff), ...random].map((word) => hex(word, 4))
  return (hex(lastMs, 12) + words.join('')).replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

let lastMs = 0
let counter = 0

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
  const bytes = crypto.getRandomValues(new Uint8Array(8))
  bytes[0] = 0x80 | ((bytes[0] ?? 0) & 0x3f)
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  const time = lastMs.toString(16).padStart(12, '0')
  const count = counter.toString(16).padStart(3, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${count}-${hex.slice(0, 4)}-${hex.slice(4)}`
}

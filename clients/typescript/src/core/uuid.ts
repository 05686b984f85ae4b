/** How many there are of a millisecond before the next one is begun. Up to the year 2109 a number counts them. */
const PER_MS = 2048

let last = 0

/**
 * A UUIDv7: in the order in which this page made them, also within a millisecond and where the clock is set back. 11 bits
 * behind the time count, the other 62 are random.
 */
export function uuidv7(nowMs: number = Date.now()): string {
  last = Math.max(Math.floor(nowMs) * PER_MS, last + 1)
  const [random = 0n] = crypto.getRandomValues(new BigUint64Array(1))
  const digits = (last * 2).toString(16).padStart(15, '0') + ((2n << 62n) | (random >> 2n)).toString(16)
  return digits.replace(/(.{8})(.{4})(.{3})(.{4})/, '$1-$2-7$3-$4-')
}

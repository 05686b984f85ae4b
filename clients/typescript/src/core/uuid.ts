let last = 0n

/**
 * A UUIDv7: in the order in which this page made them, also within a millisecond and where the clock is set back. The
 * 12 bits behind the time count, the other 62 are random.
 */
export function uuidv7(nowMs: number = Date.now()): string {
  const now = BigInt(Math.floor(nowMs)) << 12n
  last = now > last ? now : last + 1n
  const [random = 0n] = crypto.getRandomValues(new BigUint64Array(1))
  const bits = ((last >> 12n) << 80n) | (7n << 76n) | ((last & 0xfffn) << 64n) | (2n << 62n) | (random >> 2n)
  return bits
    .toString(16)
    .padStart(32, '0')
    .replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** About how much room data takes. Walks it: writing it as JSON would take longer than reading it did. */
export function weight(value: unknown): number {
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length
  if (typeof value !== 'object' || value === null) return 8
  let sum = 16
  for (const [name, inner] of Object.entries(value)) sum += name.length + weight(inner)
  return sum
}

import type { Subscription, TidingsEvent } from '../../src/index.js'

/** Waits until it holds; looks again after each turn of the event loop, and asks nothing of the clock but an end. */
export async function until(holds: () => boolean | Promise<boolean>, withinMs = 20_000): Promise<void> {
  const endMs = performance.now() + withinMs
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`it does not hold within ${withinMs} ms: ${holds}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** The next events of a subscription. */
export async function gather(subscription: Subscription, count: number): Promise<TidingsEvent[]> {
  const events: TidingsEvent[] = []
  for await (const event of subscription) if (events.push(event) === count) break
  return events
}

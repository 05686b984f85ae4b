/** Web Locks as far as the outbox needs them: exclusive, and taken only if they are free. */
export class FakeLocks {
  readonly held = new Set<string>()

  async request(
    name: string,
    _options: { ifAvailable: true },
    act: (lock: { name: string } | null) => unknown,
  ): Promise<unknown> {
    await Promise.resolve()
    if (this.held.has(name)) return act(null)
    this.held.add(name)
    try {
      return await act({ name })
    } finally {
      this.held.delete(name)
    }
  }
}

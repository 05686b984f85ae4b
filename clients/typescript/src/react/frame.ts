// One animation frame for all that has changed.
//
// - Whatever the rate of events is, components render at most once a frame, all of them in the same one. When rendering
//   is slower than the screen, frames come later, and so do renders: the page stays usable.
// - A hidden page has no frames; what changes there is shown within 100 ms, as far as the browser lets timers run.

const jobs = new Set<() => void>()
let stop: (() => void) | undefined

/** Runs the job in the next frame, once however often it is asked for until then. */
export function inNextFrame(job: () => void): void {
  jobs.add(job)
  if (stop) return
  const hasFrames = typeof requestAnimationFrame === 'function'
  const frame = hasFrames ? requestAnimationFrame(run) : 0
  const timer = setTimeout(run, hasFrames ? 100 : 16)
  stop = () => {
    clearTimeout(timer)
    if (hasFrames) cancelAnimationFrame(frame)
  }
}

function run(): void {
  stop?.()
  stop = undefined
  const due = [...jobs]
  jobs.clear()
  for (const job of due) {
    try {
      job()
    } catch (error) {
      // The others of this frame are run all the same; the host is told of it as of any error that nobody caught.
      queueMicrotask(() => {
        throw error
      })
    }
  }
}

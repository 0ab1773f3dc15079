import type { Clock } from '../../clock.ts'
import type { Planned } from './body.ts'
import type { Container } from './container.ts'

/*
 * Containers that wait on their standard input for a run of exactly their create body. Each serves one run. Only bodies
 * that a run was asked for lately have any, so that a target nobody uses costs nothing.
 */

export interface PoolOptions {
  /** Containers kept waiting for each body. */
  readonly size: number
  readonly clock: Clock
  start(planned: Planned): Promise<Container>
  /** Gets rid of one that served nobody. */
  discard(container: Container): void
  /** Milliseconds between looks at what is too old. */
  readonly tendMs: number
}

export interface Pool {
  /** One that waits, or a new one. Rejects as `start` does. */
  take(planned: Planned): Promise<Container>
  /** Makes up for what was taken of this body. */
  refill(planned: Planned): void
  readonly waiting: readonly string[]
  /** Starts no more, and discards what waits or is about to. */
  close(): Promise<void>
}

/** A container waits no longer than this, nor is one made for a body that was not asked for in as long. */
const keptMs = 600_000
const mostBodies = 16

interface Body {
  readonly planned: Planned
  askedAt: number
  readonly spares: Set<Spare>
}

interface Spare {
  readonly madeAt: number
  readonly starting: Promise<Container | null>
  container: Container | null
}

export function openPool(options: PoolOptions): Pool {
  const { size, clock } = options
  const bodies = new Map<string, Body>()
  let open = true

  function add(body: Body): void {
    const spare: Spare = {
      madeAt: clock.monotonic(),
      container: null,
      // Why one could not be started is told to the run that then starts its own.
      starting: options.start(body.planned).catch(() => null),
    }
    body.spares.add(spare)
    void spare.starting.then(async (container) => {
      spare.container = container
      await container?.closed
      if (body.spares.delete(spare) && container !== null) options.discard(container)
    })
  }

  function drop(body: Body, spare: Spare): void {
    body.spares.delete(spare)
    void spare.starting.then((container) => {
      if (container !== null) options.discard(container)
    })
  }

  function forget(key: string, body: Body): void {
    bodies.delete(key)
    for (const spare of body.spares) drop(body, spare)
  }

  const timer = setInterval(() => {
    const now = clock.monotonic()
    for (const [key, body] of bodies) {
      if (now - body.askedAt >= keptMs) {
        forget(key, body)
        continue
      }
      for (const spare of body.spares) {
        if (now - spare.madeAt < keptMs) continue
        drop(body, spare)
        add(body)
      }
    }
  }, options.tendMs)
  timer.unref()

  return {
    async take(planned) {
      const { key } = planned
      const body = bodies.get(key) ?? { planned, askedAt: 0, spares: new Set<Spare>() }
      body.askedAt = clock.monotonic()
      // Latest last, so that the first is the one to go.
      bodies.delete(key)
      if (size > 0 && open) bodies.set(key, body)
      for (const [oldest, old] of bodies) {
        if (bodies.size <= mostBodies) break
        forget(oldest, old)
      }
      for (const spare of [...body.spares].sort(
        (a, b) => Number(b.container !== null) - Number(a.container !== null),
      )) {
        if (clock.monotonic() - spare.madeAt >= keptMs) continue
        body.spares.delete(spare)
        const container = await spare.starting
        if (container !== null) return container
      }
      return await options.start(planned)
    },
    refill(planned) {
      const body = bodies.get(planned.key)
      if (body === undefined || !open) return
      while (body.spares.size < size) add(body)
    },
    get waiting() {
      return [...bodies.values()].flatMap(({ spares }) =>
        [...spares].flatMap(({ container }) => (container === null ? [] : [container.id])),
      )
    },
    async close() {
      open = false
      clearInterval(timer)
      const starting = [...bodies.values()].flatMap(({ spares }) => [...spares].map((spare) => spare.starting))
      for (const [key, body] of bodies) forget(key, body)
      await Promise.all(starting)
    },
  }
}

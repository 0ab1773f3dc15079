import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { systemClock } from '../clock.ts'
import type { Unauthenticated } from '../request/caller.ts'
import { openFailures } from './failures.ts'

export const routes = ['mcp', 'transfer', 'well-known', 'health', 'metrics', 'other'] as const
export type Route = (typeof routes)[number]

/** What the broker tells of itself as one number. */
export interface Gauges {
  readonly [name: string]: { readonly help: string; readonly read: () => number }
}

export interface Metrics {
  readonly type: string
  answered(route: Route, status: number, seconds: number): void
  /** Something that never became a request of a route: a malformed head, a connection too many … */
  refused(why: 'malformed' | 'host' | 'origin' | 'busy' | 'connections'): void
  /** A request whose sender did not prove who it is. */
  unauthenticated(code: Unauthenticated['code'], address: string): void
  text(): Promise<string>
  close(): void
}

/** The figures of a broker, without a value that came from outside: no ids, no names, no tenants, no addresses. */
export function openMetrics(gauges: Gauges): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const answered = new Counter({
    name: 'writ_http_requests_total',
    help: 'HTTP requests answered',
    labelNames: ['route', 'status'],
    registers,
  })
  const refused = new Counter({
    name: 'writ_http_refused_total',
    help: 'HTTP requests and connections refused before they reached a route',
    labelNames: ['why'],
    registers,
  })
  const unauthenticated = new Counter({
    name: 'writ_http_unauthenticated_total',
    help: 'Requests whose sender did not prove who it is',
    labelNames: ['code'],
    registers,
  })
  const failures = openFailures(systemClock)
  const seconds = new Histogram({
    name: 'writ_http_request_seconds',
    help: 'Time from the head of a request to the end of its answer, waits included',
    labelNames: ['route'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 20, 60],
    registers,
  })
  const delay = monitorEventLoopDelay({ resolution: 20 })
  delay.enable()
  const own: Gauges = {
    ...gauges,
    writ_http_token_failures_worst_address: {
      help: 'Tokens refused over the last minute from the address that sent most of them',
      read: () => failures.worst(),
    },
    writ_http_token_failures_addresses: {
      help: 'Addresses that sent refused tokens over the last minute',
      read: () => failures.addresses(),
    },
    writ_resident_memory_bytes: { help: 'Resident memory of the broker', read: () => process.memoryUsage.rss() },
    writ_event_loop_delay_seconds: {
      help: 'Delay of the event loop, 99th percentile since the last reading',
      read: () => {
        const seen = delay.percentile(99) / 1e9
        delay.reset()
        return Number.isFinite(seen) ? seen : 0
      },
    },
  }
  for (const [name, { help, read }] of Object.entries(own))
    // eslint-disable-next-line no-new -- registers itself
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  return {
    type: registry.contentType,
    answered(route, status, took) {
      answered.inc({ route, status: String(status) })
      seconds.observe({ route }, took)
    },
    refused: (why) => refused.inc({ why }),
    unauthenticated(code, address) {
      unauthenticated.inc({ code })
      // Asking without a token is how a client learns where to get one; a dead issuer is not the client's failure.
      if (code === 'invalid_token') failures.note(address)
    },
    text: async () => await registry.metrics(),
    close: () => void delay.disable(),
  }
}

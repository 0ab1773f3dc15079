import type { Broker } from './broker.ts'
import type { JsonObject } from './digest.ts'
import { WritError } from './error.ts'
import type { HttpServer } from './http/http.ts'
import type { Identity } from './http/identity/identity.ts'
import type { Gauges } from './http/metrics.ts'
import type { HttpSettings } from './http/settings.ts'
import type { Transfers } from './http/transfer.ts'
import { unavailableTargets } from './path/availability.ts'
import { nowOf, type Parts } from './path/parts.ts'
import type { Runner } from './path/run.ts'
import type { Keys } from './receipt/keys.ts'

/** Milliseconds after which an MCP session nobody used is forgotten; its client is told and opens another. */
const sessionIdleMs = 30 * 60_000

/**
 * The HTTP edge over a broker's parts. Null where nobody asked for HTTP in so many words (`implied`) and its address is
 * taken: the broker goes on without.
 */
export async function openWeb(
  settings: HttpSettings,
  from: {
    readonly parts: Parts
    readonly runner: Runner
    readonly broker: Broker
    readonly identity: Identity
    readonly transfers: Transfers
    readonly keys: Keys
    readonly implied: boolean
  },
): Promise<HttpServer | null> {
  const { parts, runner, broker, identity, keys } = from
  const { log } = parts
  // Loaded only where it serves: a broker that was started for one client on this machine starts sooner without.
  const [{ serveHttp }, { openMcpHttp }] = await Promise.all([import('./http/http.ts'), import('./mcp/http.ts')])
  const { sessions, sessions_per_caller: sessionsPerCaller } = settings.limits
  try {
    const server = await serveHttp({
      settings,
      authenticate: identity.authenticate,
      mcp: openMcpHttp({ broker, log, limits: { sessions, sessionsPerCaller, idleMs: sessionIdleMs } }),
      transfers: from.transfers,
      wellKnown: (path, resource) =>
        path === '/.well-known/oauth-protected-resource' || path === '/.well-known/oauth-protected-resource/mcp'
          ? identity.metadata(resource)
          : null,
      keys,
      ready: async () => await readiness(parts),
      now: () => nowOf(parts),
      gauges: gaugesOf(parts, runner),
      log,
    })
    log.info({ url: `${settings.url ?? server.url}/mcp`, address: server.url }, 'serving MCP over HTTP')
    if (settings.behindProxy)
      log.warn(
        'unsafe_plain_http_behind_proxy: tokens arrive in the clear here; only a proxy that speaks TLS may reach this address',
      )
    return server
  } catch (failure) {
    if (!from.implied || !(failure instanceof WritError)) throw failure
    log.warn({ err: failure }, 'no HTTP: nobody asked for this address; name one with --listen or http.listen')
    return null
  }
}

/**
 * `/readyz`: a broker that answers is ready; what it lacks for some target or for all of them stands beside that, in words
 * for anybody. Which target, and why, is the operator's to read: in the log and from `writ doctor`.
 */
export async function readiness(
  parts: Pick<Parts, 'availability' | 'catalog' | 'ledger' | 'policy'>,
): Promise<JsonObject> {
  // A run host that cannot be asked runs nothing.
  const able = await parts.availability().catch(() => new Map())
  const lacks = new Set(unavailableTargets(parts.catalog(), able).map((one) => one.lacks))
  const { generation } = parts.policy
  return {
    ready: true,
    unavailable: [
      ...(generation === null || generation.packs.length === 0 ? ['policy'] : []),
      ...[...lacks].sort(),
      ...(parts.ledger.room() === 'ok' ? [] : ['disk']),
    ],
  }
}

function gaugesOf(parts: Parts, runner: Runner): Gauges {
  const { views } = parts.ledger
  return {
    writ_executions_running: { help: 'Executions that run', read: () => runner.running },
    writ_executions_queued: { help: 'Executions that wait for a place', read: () => runner.queued },
    writ_approvals_open: {
      help: 'Approvals people have still to give',
      read: () => views.approvals({ state: 'open' }, 1000).length,
    },
    writ_waits: { help: 'Calls that wait for a change', read: () => parts.changes.waiting },
    writ_receipts: { help: 'Receipts in the log', read: () => views.logHead().size },
  }
}

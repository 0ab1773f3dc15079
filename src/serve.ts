import { join } from 'node:path'
import type { Logger } from 'pino'
import { openFileStore } from './artifact/store.ts'
import type { Broker } from './broker.ts'
import { systemClock } from './clock.ts'
import { type Clockwork, startClockwork } from './clockwork.ts'
import type { Config } from './config.ts'
import { serveControl } from './control/control.ts'
import type { Answered } from './control/protocol.ts'
import { openSources } from './credential/sources.ts'
import { digestOf } from './digest.ts'
import { WritError } from './error.ts'
import { openOutputStore } from './execution/output.ts'
import { startRunHost } from './execution/host.ts'
import { type Folder, folderOf, makeFolder, readKept } from './folder.ts'
import { openIdentity } from './http/identity/identity.ts'
import { tokenMethods } from './http/identity/operate.ts'
import { openLoopback } from './http/loopback.ts'
import { openTransferAnswers, type Transfers } from './http/transfer.ts'
import { lockFolder } from './ledger/sqlite/lock.ts'
import type { Ledger } from './ledger/ledger.ts'
import { openSqliteLedger } from './ledger/sqlite/sqlite.ts'
import { openLive } from './live.ts'
import { listenMcp } from './mcp/socket.ts'
import { operatorMethods } from './operate.ts'
import { openAvailability } from './path/availability.ts'
import { openPace } from './path/pace.ts'
import { openChanges } from './path/changes.ts'
import { openBroker } from './path/open.ts'
import { aheadS, type Parts } from './path/parts.ts'
import { openRefusals } from './path/refusals.ts'
import { openRunner } from './path/run.ts'
import { openStorage } from './path/storage.ts'
import { openTransfers } from './path/transfer.ts'
import { inTurn } from './path/turn.ts'
import { openEngine } from './policy/engine.ts'
import { type Generations, openGenerations } from './policy/generation.ts'
import type { Generation } from './policy/policy.ts'
import { compilePacks } from './policy/tools.ts'
import { policyAccount } from './receipt/account.ts'
import { type Keys, openKeys } from './receipt/keys.ts'
import { dueAccount, openSigner } from './receipt/sign.ts'
import { recover, resume } from './recover.ts'
import type { Caller } from './request/caller.ts'
import { openWeb } from './web.ts'

export interface Served {
  readonly broker: Broker
  readonly parts: Parts
  readonly folder: Folder
  /** Resolves when the broker has stopped, by whatever asked it to. */
  readonly stopped: Promise<void>
  stop(): Promise<void>
  status(): Promise<Answered<'status'>>
}

/** Whoever opens the local socket belongs to this tenant; tokens name their own. */
const localTenant = 'default'

/** From configuration to a broker that answers: lock, ledger, keys, policy, run host, sockets, in that order. */
export async function serve(
  config: Config,
  options: {
    readonly log: Logger
    readonly env: ReadonlyMap<string, string>
    readonly version: string
    readonly idle: boolean
    /** Nobody asked for HTTP in so many words: where its address is taken, the broker goes on without. */
    readonly httpImplied: boolean
  },
): Promise<Served> {
  const { log } = options
  const started = Date.now()
  const folder = folderOf(config.data)
  makeFolder(folder)
  const lock = lockFolder(folder.root)
  // First, because its worker gets ready while the rest is opened.
  const engine = openEngine({ threads: 2 })
  const keys = openKeys(config.keys)
  const signer = openSigner(keys, { issuer: config.issuer })
  const ledger = openSqliteLedger({ path: folder.ledger, signer, clock: systemClock })
  const artifacts = openFileStore(folder.artifacts)
  const outputs = openOutputStore(folder.outputs)

  await accountForKeys(ledger, keys)

  const identity = openIdentity({ ledger, clock: systemClock, log, oauth: config.oauth })
  let policies: Generations | null = null
  const live = await openLive(config, {
    ledger,
    artifacts,
    log,
    changed: (next) => identity.configure(next.oauth),
    // What is attached, and as what, stands in writ.yaml too.
    applied: () => void policies?.refresh(),
  })
  const generations = await openGenerations({
    attachments: () => live.config().policies,
    cacheDir: folder.policy,
    engine,
    compile: compilePacks,
    last: ledger.views.generation(),
    onChange: async (generation) => await noteGeneration(ledger, log, generation),
    onRefused: (findings) =>
      log.error(
        { findings: findings.slice(0, 20) },
        'a policy edit was refused; what decided before goes on in its place',
      ),
  })
  policies = generations

  const listening = Promise.withResolvers<void>()
  const host = startRunHost({
    docker: config.docker,
    // The first client is answered before there is anything to run.
    after: listening.promise,
    // The same for every broker of this folder: what one that was killed left behind is the next one's to sweep.
    owner: digestOf(`${signer.origin}\n${folder.root}`).slice('sha256:'.length, 'sha256:'.length + 16),
    onExit(code, complaint) {
      log.error({ code, complaint }, 'the run host ended; it is started again')
      // A new one sweeps what the dead one's workers left; the pause keeps one that cannot live from being forked in a loop.
      setTimeout(() => void host.check().catch(() => undefined), 1000).unref()
    },
  })
  const sources = openSources({
    env: options.env,
    file: { dir: config.credentials, identityFile: join(config.keys, 'credentials.age') },
  })
  const storage = openStorage(ledger, () => live.config().quotas, readKept(folder.holdings))
  const parts: Parts = {
    clock: systemClock,
    ledger,
    artifacts,
    outputs,
    policy: engine,
    host,
    sources,
    catalog: () => live.catalog(),
    approvers: () => live.approvers(),
    rolesOf: (tenant, subject, agent) => {
      const { local } = live.config()
      const here = tenant === localTenant && subject === local.subject && (agent ?? local.agent) === local.agent
      return [...new Set([...(here ? local.roles : []), ...identity.rolesOf(tenant, subject, agent)])]
    },
    origin: signer.origin,
    maxRunning: 4,
    storage,
    changes: openChanges(),
    availability: openAvailability(
      host,
      systemClock,
      () => live.catalog(),
      (unavailable) =>
        unavailable.length === 0
          ? log.info('every target of the catalog can be run on')
          : log.warn({ unavailable }, 'targets are not available'),
    ),
    deniedPace: openPace(systemClock, 60),
    log,
  }
  const runner = openRunner(parts)
  const refusals = openRefusals(parts)
  const loopback = openLoopback((): Transfers => transferAnswers)
  const transfers = openTransfers(parts, refusals, {
    place: {
      url: async () => (http === null ? await loopback.url() : (config.http?.url ?? http.url)),
      keep: () => loopback.keep(),
      release: () => loopback.release(),
    },
    spared: (digest) => live.catalog().files.has(digest),
  })
  const transferAnswers = openTransferAnswers(transfers, parts)
  const broker = openBroker(parts, runner, refusals, transfers)
  const recovered = await recover(parts)
  log.info(recovered, 'recovered')

  const localCaller = (tenant: string = localTenant): Caller => ({
    tenant,
    subject: { type: 'user', id: live.config().local.subject },
    roles: live.config().local.roles,
    agent: { id: live.config().local.agent, asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: Date.now(), shown: null },
  })

  const done = Promise.withResolvers<void>()
  let stopping: Promise<void> | null = null
  let clockwork: Clockwork | null = null
  // Before the socket: a broker that cannot have its address has answered nobody.
  const http =
    config.http === null
      ? null
      : await openWeb(config.http, {
          parts,
          runner,
          broker,
          identity,
          transfers: transferAnswers,
          keys,
          implied: options.httpImplied,
        })

  const mcp = await listenMcp({
    path: folder.mcpSocket,
    broker,
    callerOf: () => localCaller(),
    log,
    changed: () => clockwork?.busy(),
  })
  listening.resolve()

  const status = async (): Promise<Answered<'status'>> => {
    const problem = live.problem()
    const ahead_s = aheadS(ledger.views, Date.now())
    return await Promise.resolve({
      version: options.version,
      pid: process.pid,
      started: new Date(started).toISOString(),
      running: runner.running,
      queued: runner.queued,
      awaiting_approval: ledger.views.approvals({ state: 'open' }, 1000).length,
      connections: mcp.connections() + (http?.connections() ?? 0),
      ...(http === null ? {} : { http: http.url }),
      receipts: ledger.views.logHead().size,
      room: ledger.room(),
      ...(ahead_s === null ? {} : { ahead_s }),
      recovered,
      policy: generations.status(),
      configuration: problem === null ? { ok: true } : { ok: false, problem },
    })
  }

  const stop = async (): Promise<void> => {
    stopping ??= (async () => {
      clockwork?.stop()
      await live.close()
      await transfers.close()
      await http?.close()
      await loopback.close()
      await mcp.close()
      await control.close()
      await generations.close()
      // Runs are ended by the run host and recorded before the ledger closes: a stop loses no outcome.
      await runner.stop()
      await refusals
        .flush()
        .catch((failure: unknown) => log.error({ err: failure }, 'refusals could not be accounted for'))
      await host.close()
      await engine.close()
      await clockwork?.keepHoldings()
      ledger.close()
      lock.release()
      done.resolve()
    })()
    await stopping
  }

  const control = await serveControl(folder.controlSocket, {
    status,
    ...tokenMethods(identity.tokens),
    async stop() {
      setImmediate(() => void stop())
      return await Promise.resolve({ pid: process.pid })
    },
    async reload() {
      await live.reload()
      await generations.reload()
      return await status()
    },
    ...operatorMethods({ parts, runner, broker, caller: localCaller }),
  })

  resume(parts, runner)
  clockwork = startClockwork({
    parts,
    folder,
    live,
    transfers,
    refusals,
    started,
    work: () => mcp.connections() + transfers.live + runner.running + runner.queued,
    // A broker that serves HTTP is there for clients it does not know of yet.
    idle: options.idle && http === null ? stop : null,
  })

  log.info({ pid: process.pid, ms: Date.now() - started }, 'ready')
  return { broker, parts, folder, stopped: done.promise, stop, status }
}

/** The genesis of a new log, and the receipt of a key change that was made while no broker ran. */
async function accountForKeys(ledger: Ledger, keys: Keys): Promise<void> {
  // A rotation is written down at the next start, so no log is shorter than where its newest key begins.
  const begins = Math.max(...keys.set.keys.filter(({ role }) => role === 'receipt').map(({ from }) => from - 1))
  if (ledger.views.logHead().size < begins)
    throw new WritError('invalid_config', 'the receipt key in use is newer than this ledger', {
      remedy:
        'Restore the data folder and the keys folder of one backup; for a new data folder make keys with "writ init".',
    })
  for (;;) {
    const due = dueAccount(keys, ledger.views.logHead().size, Date.now())
    if (due === null) return
    await ledger.append({ kind: 'sign', execution: null, account: due })
  }
}

/** Nothing is decided by a generation before its receipt is durable. */
async function noteGeneration(ledger: Ledger, log: Logger, generation: Generation): Promise<void> {
  await inTurn('generation', async () => {
    // Unchanged since the broker ran last: already accounted for.
    if (ledger.views.generation()?.digest === generation.digest) return
    const packs = generation.packs.map(({ pack, layer, kind, digest }) => ({ pack, layer, kind, digest }))
    await ledger.append(
      { kind: 'generation', number: generation.number, digest: generation.digest, packs },
      { kind: 'sign', execution: null, account: policyAccount(generation, Date.now()) },
    )
    log.info({ generation: generation.number }, 'a policy generation is in force')
  })
}

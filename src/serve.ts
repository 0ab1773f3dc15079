import { readFileSync, watch } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Logger } from 'pino'
import { standing } from './approval/requirement.ts'
import { openFileStore } from './artifact/store.ts'
import type { Broker } from './broker.ts'
import { systemClock } from './clock.ts'
import { type Config, loadConfig } from './config.ts'
import { serveControl } from './control/control.ts'
import { openSources } from './credential/sources.ts'
import { digestJson, digestOf, type Json, type JsonObject } from './digest.ts'
import { WritError } from './error.ts'
import { openOutputStore } from './execution/output.ts'
import { startRunHost } from './execution/host.ts'
import { type Folder, folderOf, makeFolder } from './folder.ts'
import type { HttpServer } from './http/http.ts'
import type { Gauges } from './http/metrics.ts'
import type { HttpSettings } from './http/settings.ts'
import { openIdentity } from './http/identity/identity.ts'
import { tokenMethods } from './http/identity/operate.ts'
import { openLoopback } from './http/loopback.ts'
import { parseId } from './id.ts'
import { openTransferAnswers, type Transfers } from './http/transfer.ts'
import { lockFolder } from './ledger/sqlite/lock.ts'
import { openSqliteLedger } from './ledger/sqlite/sqlite.ts'
import { listenMcp } from './mcp/socket.ts'
import { answerWithKey, showApproval } from './path/answer.ts'
import { openAvailability } from './path/availability.ts'
import { openPace } from './path/pace.ts'
import { openChanges } from './path/changes.ts'
import { openBroker } from './path/open.ts'
import type { Parts } from './path/parts.ts'
import { openRefusals } from './path/refusals.ts'
import { openRunner, type Runner } from './path/run.ts'
import { openTransfers } from './path/transfer.ts'
import { inTurn } from './path/turn.ts'
import { type Catalog, loadCatalog } from './plan/catalog.ts'
import { openEngine } from './policy/engine.ts'
import { openGenerations } from './policy/generation.ts'
import type { Generation } from './policy/policy.ts'
import { compilePacks } from './policy/tools.ts'
import { approversAccount, policyAccount } from './receipt/account.ts'
import { openKeys } from './receipt/keys.ts'
import { dueAccount, openSigner } from './receipt/sign.ts'
import { expire, recover } from './recover.ts'
import type { Caller } from './request/caller.ts'

export interface Served {
  readonly broker: Broker
  readonly parts: Parts
  readonly folder: Folder
  /** Resolves when the broker has stopped, by whatever asked it to. */
  readonly stopped: Promise<void>
  stop(): Promise<void>
  status(): Promise<JsonObject>
}

/** Milliseconds after which an MCP session nobody used is forgotten; its client is told and opens another. */
const sessionIdleMs = 30 * 60_000

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
  const engine = openEngine({ threads: 1 })
  const keys = openKeys(config.keys)
  const signer = openSigner(keys, { issuer: config.issuer })
  const ledger = openSqliteLedger({ path: folder.ledger, signer, clock: systemClock })
  const artifacts = openFileStore(folder.artifacts)
  const outputs = openOutputStore(folder.outputs)

  // The genesis of a new log, and the receipt of a key change that was made while no broker ran.
  for (
    let due = dueAccount(keys, ledger.views.logHead().size, Date.now());
    due !== null;
    due = dueAccount(keys, ledger.views.logHead().size, Date.now())
  )
    await ledger.append({ kind: 'sign', execution: null, account: due })

  // What is read live is replaced as a whole, so every decision sees one consistent configuration.
  let live = config
  let catalog: Catalog = loadCatalog(config.catalog, config.limits)
  let catalogProblem: string | null = null
  await storeCatalogFiles(catalog, artifacts)
  await noteApprovers(ledger, live)

  const identity = openIdentity({ ledger, clock: systemClock, log, oauth: config.oauth })
  /** A receipt that found no room is owed still: the clockwork asks again, until the generation in force is accounted for. */
  async function noteGeneration(generation: Generation): Promise<void> {
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
  const generations = await openGenerations({
    attachments: () => live.policies,
    cacheDir: folder.policy,
    engine,
    compile: compilePacks,
    last: ledger.views.generation(),
    onChange: noteGeneration,
    onRefused: (findings) =>
      log.error(
        { findings: findings.slice(0, 20) },
        'a policy edit was refused; the earlier generation stays in force',
      ),
  })

  const listening = Promise.withResolvers<void>()
  const host = startRunHost({
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
  const parts: Parts = {
    clock: systemClock,
    ledger,
    artifacts,
    outputs,
    policy: engine,
    host,
    sources,
    catalog: () => catalog,
    approvers: () => live.approvers,
    rolesOf: (tenant, subject, agent) => {
      const { local } = live
      const here = tenant === localTenant && subject === local.subject && (agent ?? local.agent) === local.agent
      return [...new Set([...(here ? local.roles : []), ...identity.rolesOf(tenant, subject, agent)])]
    },
    origin: signer.origin,
    maxRunning: 4,
    changes: openChanges(),
    availability: openAvailability(host, systemClock),
    deniedPace: openPace(systemClock, 60),
    log,
  }
  const runner = openRunner(parts)
  const refusals = openRefusals(parts)
  const loopback = openLoopback((): Transfers => transferAnswers)
  const transfers = openTransfers(parts, refusals, {
    quotas: () => live.quotas,
    place: {
      url: async () => (http === null ? await loopback.url() : (config.http?.url ?? http.url)),
      release: () => loopback.release(),
    },
    spared: (digest) => catalog.files.has(digest),
  })
  const transferAnswers = openTransferAnswers(transfers, parts)
  const broker = openBroker(parts, runner, refusals, transfers)
  const recovered = await recover(parts, runner)
  log.info(recovered, 'recovered')

  const localCaller = (tenant: string = localTenant): Caller => ({
    tenant,
    subject: { type: 'user', id: live.local.subject },
    roles: live.local.roles,
    agent: { id: live.local.agent, asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: Date.now() },
  })

  /** One after the other: a slow one must not put an older file in the place of a newer. */
  const reload = async (): Promise<void> => await inTurn('reload', reloadNow)
  const reloadNow = async (): Promise<void> => {
    try {
      const next = loadConfig(config.path)
      const nextCatalog = loadCatalog(next.catalog, next.limits)
      await storeCatalogFiles(nextCatalog, artifacts)
      identity.configure(next.oauth)
      // Where keys, data and sockets lie is fixed for the life of a broker; the rest follows the file.
      live = {
        ...next,
        data: config.data,
        keys: config.keys,
        credentials: config.credentials,
        issuer: config.issuer,
        http: config.http,
      }
      catalog = nextCatalog
      catalogProblem = null
    } catch (failure) {
      if (!(failure instanceof WritError)) throw failure
      catalogProblem = failure.message
      log.error({ err: failure }, 'an edit of the configuration was refused; the earlier one stays in force')
      return
    }
    // Who may approve no more is out at once; that it could not be written now is owed, and the clockwork asks again.
    await noteApprovers(ledger, live)
  }
  const watcher = watchFiles(
    [config.path, config.catalog],
    () =>
      void reload().catch((failure: unknown) =>
        log.error({ err: failure }, 'the configuration could not be read again'),
      ),
  )

  const done = Promise.withResolvers<void>()
  let stopping: Promise<void> | null = null
  let busyAt = Date.now()
  const mcp = await listenMcp({
    path: folder.mcpSocket,
    broker,
    callerOf: () => localCaller(),
    log,
    changed: () => (busyAt = Date.now()),
  })
  listening.resolve()

  const http = config.http === null ? null : await openHttp(config.http)
  async function openHttp(settings: HttpSettings): Promise<HttpServer | null> {
    // Loaded only where it serves: a broker that was started for one client on this machine starts sooner without.
    const [{ serveHttp }, { openMcpHttp }] = await Promise.all([import('./http/http.ts'), import('./mcp/http.ts')])
    const { sessions, sessions_per_caller: sessionsPerCaller } = settings.limits
    try {
      return await serveHttp({
        settings,
        authenticate: identity.authenticate,
        mcp: openMcpHttp({ broker, log, limits: { sessions, sessionsPerCaller, idleMs: sessionIdleMs } }),
        transfers: transferAnswers,
        wellKnown: (path, resource) =>
          path === '/.well-known/oauth-protected-resource' || path === '/.well-known/oauth-protected-resource/mcp'
            ? identity.metadata(resource)
            : null,
        keys,
        ready: async () => await readiness(parts),
        gauges: gaugesOf(parts, runner),
        log,
      })
    } catch (failure) {
      if (!options.httpImplied || !(failure instanceof WritError)) throw failure
      log.warn({ err: failure }, 'no HTTP: nobody asked for this address; name one with --listen or http.listen')
      return null
    }
  }

  const status = async (): Promise<JsonObject> => {
    const policy = generations.status()
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
      recovered: { ...recovered },
      policy: policy as unknown as Json,
      configuration: catalogProblem === null ? { ok: true } : { ok: false, problem: catalogProblem },
    })
  }

  const stop = async (): Promise<void> => {
    stopping ??= (async () => {
      clearInterval(ticker)
      watcher.close()
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
      return await Promise.resolve({ stopping: true })
    },
    async reload() {
      await reload()
      await generations.reload()
      return await status()
    },
    async approval(id) {
      // Who approves with a key of their own is enrolled for the whole Writ, so the operator's terminal shows each tenant's.
      const known = parseId('apr', id)
      const of = known === null ? null : ledger.views.approval(known)
      await admitLocal('get_status', { approval_id: id }, of?.tenant)
      const shown = await showApproval(parts, id)
      return {
        approval: shown.approval as unknown as Json,
        payload: shown.payload,
        origin: parts.origin,
        stages: standing(shown.approval).stages as unknown as Json,
      }
    },
    async answer(jws) {
      const approval = await answerWithKey(parts, runner, jws)
      return {
        approval_id: approval.id,
        state: approval.state,
        execution_id: approval.execution,
        stages: standing(approval).stages as unknown as Json,
      }
    },
    async cancel(execution) {
      await admitLocal('cancel_execution', { execution_id: execution })
      const result = await broker.call(
        localCaller(),
        'cancel_execution',
        { execution_id: execution },
        { signal: AbortSignal.timeout(10_000), progress: () => undefined },
      )
      if (result.error !== undefined)
        throw new WritError('denied', result.error.message, { remedy: result.error.remedy })
      return result as unknown as JsonObject
    },
  })

  async function admitLocal(name: string, args: JsonObject, tenant?: string): Promise<void> {
    const admission = await broker.admit(localCaller(tenant), { name, arguments: args })
    if (!admission.allowed) throw new WritError('denied', admission.reason.message, { remedy: admission.reason.remedy })
  }

  let lastFlush = Date.now()
  let lastSweep = Date.now()
  // What an earlier broker stored and nothing refers to is nobody's: no request of now can be about to name it.
  void sweep(started)
  async function sweep(before?: number): Promise<void> {
    try {
      const removed = await transfers.sweep(before)
      if (removed > 0) log.info({ removed }, 'artifacts that belong to nobody were removed')
    } catch (failure) {
      if (stopping === null) log.error({ err: failure }, 'the artifacts could not be swept')
    }
  }
  const ticker = setInterval(() => {
    void tick().catch((failure: unknown) => log.error({ err: failure }, 'the broker’s clockwork failed'))
  }, 1000)
  async function tick(): Promise<void> {
    await expire(parts)
    if (engine.generation !== null) await noteGeneration(engine.generation)
    await inTurn('reload', async () => await noteApprovers(ledger, live))
    await transfers.tick()
    if (Date.now() - lastSweep >= 3_600_000) {
      lastSweep = Date.now()
      await sweep()
    }
    if (Date.now() - lastFlush >= 60_000) {
      lastFlush = Date.now()
      await refusals.flush()
    }
    const waiting =
      mcp.connections() > 0 ||
      transfers.live > 0 ||
      runner.running > 0 ||
      runner.queued > 0 ||
      ledger.views.approvals({ state: 'open' }, 1).length > 0
    if (waiting) busyAt = Date.now()
    // A broker that serves HTTP is there for clients it does not know of yet.
    if (options.idle && http === null && Date.now() - busyAt > live.idle_stop_s * 1000) {
      log.info('idle with nothing pending: stopping')
      await stop()
    }
  }

  if (http !== null)
    log.info({ url: `${config.http?.url ?? http.url}/mcp`, address: http.url }, 'serving MCP over HTTP')
  if (http !== null && config.http?.behindProxy === true)
    log.warn(
      'unsafe_plain_http_behind_proxy: tokens arrive in the clear here; only a proxy that speaks TLS may reach this address',
    )
  log.info({ pid: process.pid, ms: Date.now() - started }, 'ready')
  return { broker, parts, folder, stopped: done.promise, stop, status }
}

/** `/readyz`: a broker that answers is ready; what it cannot run at the moment stands beside that. */
async function readiness(parts: Parts): Promise<JsonObject> {
  const able = await parts.availability()
  const unavailable = [...able].filter(([, one]) => !one.available).map(([kind]) => kind)
  return { ready: true, unavailable: parts.ledger.room() === 'ok' ? unavailable : [...unavailable, 'disk space'] }
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

/** Files that the operator's own intents bring along run like any artifact: by digest, hashed again when handed over. */
async function storeCatalogFiles(catalog: Catalog, artifacts: Parts['artifacts']): Promise<void> {
  for (const [digest, bytes] of catalog.files) {
    if (artifacts.hold(digest) !== null) continue
    await artifacts.put(
      // eslint-disable-next-line typescript/require-await -- the store takes an asynchronous stream
      (async function* () {
        yield bytes
      })(),
      bytes.length,
    )
  }
}

/** Each change of who may approve is a receipt. */
async function noteApprovers(ledger: Parts['ledger'], config: Config): Promise<void> {
  const approvers = config.approvers.map(({ subject, roles, key }) => ({ subject, roles: [...roles], key }))
  const digest = digestJson(approvers)
  if (ledger.views.approverSet() === digest) return
  await ledger.append(
    { kind: 'approver_set', digest, approvers },
    { kind: 'sign', execution: null, account: approversAccount({ digest, approvers }, Date.now()) },
  )
}

/** Calls back after one of the files was written or replaced; editors do either. */
function watchFiles(files: readonly string[], changed: () => void): { close(): void } {
  const contents = (): string => files.map((file) => readOrNothing(file)).join('\u0000')
  let known = contents()
  let timer: NodeJS.Timeout | undefined
  const look = (): void => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      const now = contents()
      if (now === known) return
      known = now
      changed()
    }, 150)
  }
  const watchers = [...new Set(files.map((file) => dirname(file)))].map((folder) => watch(folder, look))
  return {
    close() {
      clearTimeout(timer)
      for (const watcher of watchers) watcher.close()
    },
  }
}

function readOrNothing(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

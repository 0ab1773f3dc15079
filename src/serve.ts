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
import { openRunner } from './path/run.ts'
import { type Catalog, loadCatalog } from './plan/catalog.ts'
import { openEngine } from './policy/engine.ts'
import { openGenerations } from './policy/generation.ts'
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
  },
): Promise<Served> {
  const { log } = options
  const started = Date.now()
  const folder = folderOf(config.data)
  makeFolder(folder)
  const lock = lockFolder(folder.root)
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

  const engine = openEngine({ threads: 1 })
  const generations = await openGenerations({
    attachments: () => live.policies,
    cacheDir: folder.policy,
    engine,
    compile: compilePacks,
    last: ledger.views.generation(),
    onChange: async (generation) => {
      // Unchanged since the broker ran last: already accounted for.
      if (ledger.views.generation()?.digest === generation.digest) return
      const packs = generation.packs.map(({ pack, layer, kind, digest }) => ({ pack, layer, kind, digest }))
      await ledger.append(
        { kind: 'generation', number: generation.number, digest: generation.digest, packs },
        { kind: 'sign', execution: null, account: policyAccount(generation, Date.now()) },
      )
      log.info({ generation: generation.number }, 'a policy generation is in force')
    },
    onRefused: (findings) =>
      log.error(
        { findings: findings.slice(0, 20) },
        'a policy edit was refused; the earlier generation stays in force',
      ),
  })

  const host = startRunHost({
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
    rolesOf: (tenant, subject) => (tenant === localTenant && subject === live.local.subject ? live.local.roles : []),
    origin: signer.origin,
    maxRunning: 4,
    changes: openChanges(),
    availability: openAvailability(host, systemClock),
    deniedPace: openPace(systemClock, 60),
    log,
  }
  const runner = openRunner(parts)
  const refusals = openRefusals(parts)
  const broker = openBroker(parts, runner, refusals)
  const recovered = await recover(parts, runner)
  log.info(recovered, 'recovered')

  const localCaller = (): Caller => ({
    tenant: localTenant,
    subject: { type: 'user', id: live.local.subject },
    roles: live.local.roles,
    agent: { id: live.local.agent, asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: Date.now() },
  })

  const reload = async (): Promise<void> => {
    try {
      const next = loadConfig(config.path)
      const nextCatalog = loadCatalog(next.catalog, next.limits)
      await storeCatalogFiles(nextCatalog, artifacts)
      // Where keys, data and sockets lie is fixed for the life of a broker; the rest follows the file.
      live = { ...next, data: config.data, keys: config.keys, credentials: config.credentials, issuer: config.issuer }
      catalog = nextCatalog
      catalogProblem = null
      await noteApprovers(ledger, live)
    } catch (failure) {
      if (!(failure instanceof WritError)) throw failure
      catalogProblem = failure.message
      log.error({ err: failure }, 'an edit of the configuration was refused; the earlier one stays in force')
    }
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
    callerOf: localCaller,
    log,
    changed: () => (busyAt = Date.now()),
  })

  const status = async (): Promise<JsonObject> => {
    const policy = generations.status()
    return await Promise.resolve({
      version: options.version,
      pid: process.pid,
      started: new Date(started).toISOString(),
      running: runner.running,
      queued: runner.queued,
      awaiting_approval: ledger.views.approvals({ state: 'open' }, 1000).length,
      connections: mcp.connections(),
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
      await mcp.close()
      await control.close()
      await generations.close()
      // Runs are ended by the run host and recorded before the ledger closes: a stop loses no outcome.
      await runner.stop()
      await refusals.flush().catch((failure: unknown) => log.error({ err: failure }, 'refusals could not be accounted for'))
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
      await admitLocal('get_status', { approval_id: id })
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

  async function admitLocal(name: string, args: JsonObject): Promise<void> {
    const admission = await broker.admit(localCaller(), { name, arguments: args })
    if (!admission.allowed) throw new WritError('denied', admission.reason.message, { remedy: admission.reason.remedy })
  }

  let lastFlush = Date.now()
  const ticker = setInterval(() => {
    void tick().catch((failure: unknown) => log.error({ err: failure }, 'the broker’s clockwork failed'))
  }, 1000)
  async function tick(): Promise<void> {
    await expire(parts)
    if (Date.now() - lastFlush >= 60_000) {
      lastFlush = Date.now()
      await refusals.flush()
    }
    const waiting =
      mcp.connections() > 0 ||
      runner.running > 0 ||
      runner.queued > 0 ||
      ledger.views.approvals({ state: 'open' }, 1).length > 0
    if (waiting) busyAt = Date.now()
    if (options.idle && Date.now() - busyAt > live.idle_stop_s * 1000) {
      log.info('idle with nothing pending: stopping')
      await stop()
    }
  }

  log.info({ pid: process.pid, ms: Date.now() - started }, 'ready')
  return { broker, parts, folder, stopped: done.promise, stop, status }
}

/** Files that the operator's own intents bring along run like any artifact: by digest, hashed again when handed over. */
async function storeCatalogFiles(catalog: Catalog, artifacts: Parts['artifacts']): Promise<void> {
  for (const [digest, bytes] of catalog.files) {
    if ((await artifacts.size(digest)) !== null) continue
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

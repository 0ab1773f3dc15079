import { readFile, stat } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Logger } from 'pino'
import type { Approver } from './approval/approval.ts'
import type { ArtifactStore } from './artifact/artifact.ts'
import { type Config, loadConfig } from './config.ts'
import { digestJson } from './digest.ts'
import { systemCode, WritError } from './error.ts'
import type { Ledger } from './ledger/ledger.ts'
import { inTurn } from './path/turn.ts'
import { type Catalog, loadCatalog } from './plan/catalog.ts'
import { approversAccount } from './receipt/account.ts'
import { follow } from './watch.ts'

/** The configuration and the catalog in force. Each is replaced as a whole, so every decision sees one consistent state. */
export interface Live {
  config(): Config
  catalog(): Catalog
  /**
   * Who may approve: of those in the configuration what the ledger has recorded. Who was taken out, or lost a role, is out at
   * once; who is new begins with the receipt of it, so that no verdict is signed by somebody of whom nothing is known.
   */
  approvers(): readonly Approver[]
  /** Why the files as they are now are not what is in force; null where they are. */
  problem(): string | null
  reload(): Promise<void>
  /** Writes what is owed: the receipt of a changed set of approvers that found no room before. */
  settle(): Promise<void>
  close(): Promise<void>
}

/** Follows `writ.yaml`, the catalog and the files it names. `changed` is called with each configuration before it takes effect, `applied` after. */
export async function openLive(
  first: Config,
  parts: {
    readonly ledger: Ledger
    readonly artifacts: ArtifactStore
    readonly log: Logger
    readonly changed: (next: Config) => void
    readonly applied: () => void
  },
): Promise<Live> {
  const { ledger, artifacts, log } = parts
  let config = first
  /** What the catalog was read from, and what an edit that was refused names. */
  let sources: ReadonlySet<string> = new Set()
  const beside = (): readonly string[] => [...sources].filter((path) => path !== config.catalog)
  // Before the catalog is read, so that no edit falls between the two.
  const follower = await follow({
    paths: () => [config.path, config.catalog, ...beside()],
    state: async () =>
      JSON.stringify([
        await Promise.all([config.path, config.catalog].map(contents)),
        await Promise.all(beside().map(async (path) => [path, await mark(path)])),
      ]),
    changed: async () =>
      await reload().catch((failure: unknown) =>
        log.error({ err: failure }, 'the configuration could not be read again'),
      ),
  })
  let catalog: Catalog
  try {
    catalog = loadCatalog(first.catalog, first.limits)
    sources = new Set(catalog.sources)
  } catch (failure) {
    await follower.close()
    throw failure
  }
  let problem: string | null = null
  let recorded: readonly Approver[] = []

  /** One after the other: a slow one must not put an older file in the place of a newer. */
  const reload = async (): Promise<void> => await inTurn('reload', reloadNow)
  const reloadNow = async (): Promise<void> => {
    const read = new Set<string>()
    try {
      const next = loadConfig(first.path)
      const nextCatalog = loadCatalog(next.catalog, next.limits, read)
      await storeCatalogFiles(nextCatalog, artifacts)
      parts.changed(next)
      config = inPlaceOf(first, next)
      catalog = nextCatalog
      sources = read
      problem = null
      parts.applied()
    } catch (failure) {
      if (!(failure instanceof WritError)) throw failure
      problem = failure.message
      sources = new Set([...catalog.sources, ...read])
      log.error({ err: failure }, 'an edit of the configuration was refused; the earlier one stays in force')
      return
    }
    // Who may approve no more is out at once; that it could not be written now is owed, and the clockwork asks again.
    recorded = await noteApprovers(ledger, config)
  }
  await storeCatalogFiles(catalog, artifacts)
  // What was edited after `first` was read, and before anything was followed.
  if (!isStill(first)) await reload()
  recorded = await noteApprovers(ledger, config)
  return {
    config: () => config,
    catalog: () => catalog,
    approvers: () => config.approvers.flatMap((approver) => known(approver, recorded)),
    problem: () => problem,
    reload,
    settle: async () =>
      await inTurn('reload', async () => {
        recorded = await noteApprovers(ledger, config)
      }),
    close: async () => await follower.close(),
  }
}

/** Where keys, data and sockets lie is fixed for the life of a broker; the rest follows the file. */
function inPlaceOf({ data, keys, credentials, issuer, http }: Config, next: Config): Config {
  return { ...next, data, keys, credentials, issuer, http }
}

function isStill(first: Config): boolean {
  try {
    return isDeepStrictEqual(inPlaceOf(first, loadConfig(first.path)), first)
  } catch (failure) {
    if (!(failure instanceof WritError)) throw failure
    return false
  }
}

/** Files that the operator's own intents bring along run like any artifact: by digest, hashed again when handed over. */
async function storeCatalogFiles(catalog: Catalog, artifacts: ArtifactStore): Promise<void> {
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

/** What of an approver is on record: none of it where the key is another, and of the roles those that were there. */
function known(approver: Approver, recorded: readonly Approver[]): readonly Approver[] {
  const before = recorded.find(({ subject, key }) => subject === approver.subject && key === approver.key)
  const roles = approver.roles.filter((role) => before?.roles.includes(role))
  return roles.length === 0 ? [] : [{ ...approver, roles }]
}

/** Each change of who may approve is a receipt. Returns the set that is on record then. */
async function noteApprovers(ledger: Ledger, { approvers: set }: Config): Promise<readonly Approver[]> {
  const approvers = set.map(({ subject, roles, key }) => ({ subject, roles: [...roles], key }))
  const digest = digestJson(approvers)
  if (ledger.views.approverSet() === digest) return set
  await ledger.append(
    { kind: 'approver_set', digest, approvers },
    { kind: 'sign', execution: null, account: approversAccount({ digest, approvers }, Date.now()) },
  )
  return set
}

/** The text of a file, or why there is none. */
async function contents(file: string): Promise<string | { readonly unreadable: string }> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const unreadable = systemCode(error)
    if (unreadable === null) throw error
    return { unreadable }
  }
}

/** Another text where a file may hold something else: those beside the catalog are too large to be read all the time. */
async function mark(file: string): Promise<string> {
  try {
    const { mode, size, mtimeMs, ctimeMs, ino } = await stat(file)
    return [mode, size, mtimeMs, ctimeMs, ino].join(' ')
  } catch (error) {
    const code = systemCode(error)
    if (code === null) throw error
    return code
  }
}

import { existsSync, statSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { askBroker } from '../control/control.ts'
import type { CheckFinding } from '../credential/credential.ts'
import { openSources } from '../credential/sources.ts'
import { WritError } from '../error.ts'
import { type Folder, folderOf } from '../folder.ts'
import { aheadS } from '../path/parts.ts'
import { type Catalog, loadCatalog } from '../plan/catalog.ts'
import { checkPacks } from '../policy/tools.ts'
import { openKeys } from '../receipt/keys.ts'
import { findConfig, loadConfig, type Config } from '../config.ts'
import { type Context, no, withViews, yes } from './context.ts'
import { aheadText, counted, show } from './print.ts'
import { probe } from './probe.ts'

interface Area {
  readonly area: string
  readonly findings: readonly CheckFinding[]
}

/** What this machine has and lacks for this configuration, and how to get it. Asks the real parts, changes nothing. */
export async function doctor(context: Context): Promise<number> {
  const areas: Area[] = [{ area: 'runtime', findings: runtime() }]
  const file = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  if (file === null)
    areas.push({
      area: 'configuration',
      findings: [
        {
          level: 'warning',
          what: 'there is no writ.yaml here or in a folder above',
          fix: 'Run "writ init" in the folder it should be in.',
        },
      ],
    })
  else areas.push(...(await configured(file)))
  areas.push(...(await sandboxes(file)))
  const problems = areas.flatMap((area) => area.findings).filter((finding) => finding.level === 'problem').length
  const mark = { ok: 'ok     ', warning: 'WARNING', problem: 'PROBLEM' } as const
  show(context, { areas, problems }, () =>
    [
      ...areas.flatMap(({ area, findings }) => [
        area,
        ...findings.flatMap((finding) => [
          `  ${mark[finding.level]}  ${finding.what}`,
          ...(finding.fix === null ? [] : [`           ${finding.fix}`]),
        ]),
      ]),
      problems === 0 ? 'Nothing keeps Writ from working here.' : counted(problems, 'problem'),
    ].join('\n'),
  )
  return problems === 0 ? yes : no
}

/** What the executors say of this machine, and whether each target of the catalog can be run on. */
async function sandboxes(file: string | null): Promise<Area[]> {
  const read = file === null ? null : readable(file)
  const { checked, missing } = await probe(read?.config ?? null, read?.catalog ?? null)
  const targets = [...(read?.catalog.targets.values() ?? [])]
  return [
    ...checked.map(({ executor, findings }) => ({ area: `executor ${executor}`, findings })),
    ...(targets.length === 0
      ? []
      : [
          {
            area: 'targets',
            findings:
              missing.length === 0
                ? [{ level: 'ok' as const, what: `all ${String(targets.length)} can be run on`, fix: null }]
                : missing.map(({ target, why, fix }) => ({
                    level: 'warning' as const,
                    what: `target "${target}" is not available: ${why}`,
                    fix,
                  })),
          },
        ]),
  ]
}

/** Null where either cannot be read; the configuration's own findings say why. */
function readable(file: string): { readonly config: Config; readonly catalog: Catalog } | null {
  try {
    const config = loadConfig(file)
    return { config, catalog: loadCatalog(config.catalog, config.limits) }
  } catch (failure) {
    if (failure instanceof WritError) return null
    throw failure
  }
}

function runtime(): CheckFinding[] {
  const findings: CheckFinding[] = [
    { level: 'ok', what: `Node ${process.version} on ${process.platform}-${process.arch}`, fix: null },
  ]
  if (process.platform === 'win32')
    findings.push({
      level: 'problem',
      what: 'Windows is served through WSL only',
      fix: 'Install WSL and run writ in it.',
    })
  if (process.getuid?.() === 0)
    findings.push({
      level: 'warning',
      what: 'this is the root user; whoever breaks out of a run has the machine, and an agent of the same user could read the keys',
      fix: 'Run the broker as a user of its own; README.md, "A service user", shows how.',
    })
  return findings
}

async function configured(file: string): Promise<Area[]> {
  let config: Config
  try {
    config = loadConfig(file)
  } catch (failure) {
    return [{ area: 'configuration', findings: [problem(failure)] }]
  }
  const folder = folderOf(config.data)
  const areas: Area[] = [
    {
      area: 'configuration',
      findings: [
        { level: 'ok', what: file, fix: null },
        attempt(
          'catalog',
          () => `${String(loadCatalog(config.catalog, config.limits).targets.size)} targets in the catalog`,
        ),
      ],
    },
    { area: 'keys', findings: keyFindings(config) },
  ]
  const policy = await checkPacks(config.policies, { cacheDir: folder.policy }).catch((failure: unknown) => [
    { level: 'error' as const, file: '', line: 0, message: problem(failure).what },
  ])
  areas.push({
    area: 'policy',
    findings:
      config.policies.length === 0
        ? [
            {
              level: 'problem',
              what: 'no policy is attached, so nothing runs',
              fix: 'Add "policies" to writ.yaml; "writ init" in an empty folder shows how.',
            },
          ]
        : policy.length === 0
          ? [{ level: 'ok', what: `${String(config.policies.length)} packs are sound`, fix: null }]
          : policy.map((finding) => ({
              level: finding.level === 'error' ? 'problem' : 'warning',
              what: `${finding.file}:${String(finding.line)} ${finding.message}`,
              fix: null,
            })),
  })
  const sources = openSources({
    env: new Map(),
    file: { dir: config.credentials, identityFile: join(config.keys, 'credentials.age') },
  })
  for (const source of sources.values()) {
    const findings = await source.check()
    if (source.kind === 'file') areas.push({ area: 'credentials', findings })
  }
  areas.push({ area: 'data folder', findings: dataFindings(config.data) })
  if (existsSync(folder.ledger))
    areas.push({ area: 'ledger', findings: [attempt('ledger', () => ledgerState(folder)), ...clockFindings(folder)] })
  areas.push({ area: 'broker', findings: [await brokerFinding(folder.controlSocket)] })
  return areas
}

async function brokerFinding(socket: string): Promise<CheckFinding> {
  try {
    const { pid } = await askBroker(socket, 'status')
    return { level: 'ok', what: `a broker runs, pid ${String(pid)}`, fix: null }
  } catch (failure) {
    if (failure instanceof WritError && failure.code !== 'broker_unreachable')
      return { level: 'problem', what: failure.message, fix: failure.remedy }
    return { level: 'ok', what: 'no broker runs; the first client starts one', fix: null }
  }
}

function keyFindings(config: Config): CheckFinding[] {
  const findings = [attempt('keys', () => `root ${openKeys(config.keys).fingerprint()}`)]
  if (existsSync(join(config.keys, 'root.pem')))
    findings.push({
      level: 'warning',
      what: 'the root key lies on this machine',
      fix: 'Move keys/root.pem to a place offline after the first start; it is needed again only for "writ keys rotate".',
    })
  if (config.approvers.length === 0)
    findings.push({
      level: 'warning',
      what: 'nobody is enrolled as an approver, so what asks for approval is denied',
      fix: 'Enrol somebody: writ approvals enroll NAME --role approver.',
    })
  return findings
}

function dataFindings(data: string): CheckFinding[] {
  if (!existsSync(data)) return [{ level: 'ok', what: 'not made yet; the first start makes it', fix: null }]
  const mode = statSync(data).mode & 0o077
  const { bavail, bsize } = statfsSync(data)
  const free = bavail * bsize
  return [
    mode === 0
      ? { level: 'ok', what: 'private to its user', fix: null }
      : { level: 'problem', what: 'other users can open it', fix: `chmod 700 ${data}` },
    free > 256 * 1024 * 1024
      ? { level: 'ok', what: `${String(Math.round(free / 1_048_576))} MiB free`, fix: null }
      : {
          level: 'problem',
          what: 'less than 256 MiB free',
          fix: 'Free space; without room for its records no execution begins.',
        },
  ]
}

/** Throws where what was recorded cannot be read, or does not belong together. */
function ledgerState(folder: Folder): string {
  const receipts = withViews(folder, 0, (views) => {
    views.check()
    return views.logHead().size
  })
  return `${counted(receipts, 'receipt')}, and the file is sound; "writ verify" checks each of them`
}

/** A clock that was ahead for a moment leaves times that are not reached yet, and what ends compares with the newest of them. */
function clockFindings(folder: Folder): CheckFinding[] {
  const ahead = readAhead(folder)
  if (ahead === null) return []
  return [
    {
      level: 'warning',
      what: `${aheadText(ahead)}: approvals that have less time than that expire at once`,
      fix: 'Set the clock right. Where it is right and was ahead before, it passes by itself when the clock gets there.',
    },
  ]
}

function readAhead(folder: Folder): number | null {
  try {
    return withViews(folder, null, (views) => aheadS(views, Date.now()))
  } catch (failure) {
    // What cannot be read is told of above.
    if (failure instanceof WritError) return null
    throw failure
  }
}

function attempt(what: string, check: () => string): CheckFinding {
  try {
    return { level: 'ok', what: check(), fix: null }
  } catch (failure) {
    const found = problem(failure)
    return { ...found, what: `${what}: ${found.what}` }
  }
}

function problem(failure: unknown): CheckFinding {
  if (failure instanceof WritError) return { level: 'problem', what: failure.message, fix: failure.remedy }
  return { level: 'problem', what: failure instanceof Error ? failure.message : 'an unknown fault', fix: null }
}

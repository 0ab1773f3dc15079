import { parseId } from '../id.ts'
import { WritError } from '../error.ts'
import { openFileSource } from '../credential/file/file.ts'
import { Secret } from '../credential/secret.ts'
import { join } from 'node:path'
import { loadCatalog } from '../plan/catalog.ts'
import { askBroker } from '../control/control.ts'
import { openKeys } from '../receipt/keys.ts'
import { parsePayload, parseCompact } from '../jws.ts'
import { type Context, configOf, folderFor, no, readAll, withViews, yes } from './context.ts'
import { ago, show, table } from './print.ts'

export function targetsList(context: Context): number {
  const config = configOf(context)
  const catalog = loadCatalog(config.catalog, config.limits)
  const targets = [...catalog.targets.values()].map((target) => ({
    target_ref: target.ref,
    about: target.about,
    executor: target.executor,
    labels: target.labels,
    intents: target.intents,
    services: target.services.map((service) => service.name),
  }))
  show(context, { targets }, () =>
    table(
      ['target', 'executor', 'labels', 'intents', 'services', 'about'],
      targets.map((t) => [t.target_ref, t.executor, Object.entries(t.labels).map(([k, v]) => `${k}=${v}`).join(','), t.intents.join(','), t.services.join(','), t.about]),
    ),
  )
  return yes
}

function fileSource(context: Context): ReturnType<typeof openFileSource> {
  const config = configOf(context)
  return openFileSource({ dir: config.credentials, identityFile: join(config.keys, 'credentials.age') })
}

export async function credentialsList(context: Context): Promise<number> {
  const config = configOf(context)
  const catalog = loadCatalog(config.catalog, config.limits)
  const stored = new Set(await fileSource(context).list())
  const credentials = [...catalog.credentials.values()].map((credential) => ({
    name: credential.name,
    source: credential.source.kind,
    inject: credential.inject.kind,
    value: credential.source.kind === 'file' ? (stored.has(credential.source.ref) ? 'set' : 'missing') : context.env[credential.source.ref] === undefined ? 'missing' : 'set',
  }))
  const named = new Set([...catalog.credentials.values()].map((credential) => credential.source.ref))
  const unused = [...stored].filter((name) => !named.has(name))
  show(context, { credentials, unused }, () =>
    [
      table(['credential', 'source', 'inject', 'value'], credentials.map((c) => [c.name, c.source, c.inject, c.value])),
      ...unused.map((name) => `${name} is stored, and catalog.yaml names no credential for it`),
    ].join('\n'),
  )
  return yes
}

/** Values come from standard input only: an argument would stand in the process list and the shell's history. */
export async function credentialsSet(context: Context, name: string): Promise<number> {
  if (context.tty) context.note('Type the value, then Enter and Ctrl-D. It is shown as you type; pipe it in to avoid that.')
  const secret = Secret.ingest(name, await readAll(context.stdin, 70_000))
  await fileSource(context).set(name, secret)
  show(context, { name, set: true }, () => `Stored ${name}, encrypted.`)
  return yes
}

export async function credentialsRemove(context: Context, name: string): Promise<number> {
  const removed = await fileSource(context).remove(name)
  show(context, { name, removed }, () => (removed ? `Removed ${name}.` : `There is no stored value for ${name}.`))
  return removed ? yes : no
}

export function executionsList(context: Context, limit: number): number {
  const { folder } = folderFor(context)
  const now = Date.now()
  const rows = withViews(folder, [], (views) => views.executions({}, limit).map((execution) => ({ ...execution, target: views.plan(execution.plan)?.target.ref ?? '', project: views.task(execution.task)?.project_name ?? '' })))
  show(context, { executions: rows }, () => table(['execution', 'state', 'target', 'project', 'owner', 'changed'], rows.map((r) => [r.id, r.state, r.target, r.project, r.owner, ago(r.changed_at_ms, now)])))
  return yes
}

export function executionsShow(context: Context, text: string): number {
  const { folder } = folderFor(context)
  const id = parseId('exec', text)
  const found = withViews(folder, null, (views) => {
    const execution = id === null ? null : views.execution(id)
    if (execution === null || id === null) return null
    return {
      execution,
      plan: views.plan(execution.plan),
      decisions: views.decisions(id).map(({ decision }) => decision),
      approvals: views.approvals({ execution: id }, 100),
      receipts: views.receiptsOf(id).map(({ id: receipt, kind, index, digest }) => ({ receipt_id: receipt, kind, index, digest })),
    }
  })
  if (found === null) throw new WritError('not_found', `There is no execution ${text} in this ledger.`)
  const { execution, plan } = found
  show(context, found, () =>
    [
      `${execution.id}  ${execution.state}${execution.ran ? '' : '  (nothing ran)'}`,
      `  task       ${execution.task} of ${execution.owner}`,
      `  target     ${plan?.target.ref ?? '?'}  intent ${plan?.intent ?? '?'}`,
      `  plan       ${execution.plan}`,
      ...execution.reasons.map((reason) => `  reason     ${reason.code}: ${reason.message} ${reason.remedy}`),
      ...found.decisions.map((decision) => `  decision   ${decision.id} ${decision.phase}: ${decision.effect}${decision.findings.map((finding) => `\n               ${finding.kind} ${finding.id} ${finding.at} ${finding.title}`).join('')}`),
      ...found.approvals.map((approval) => `  approval   ${approval.id} ${approval.state}${approval.verdicts.map((v) => `\n               ${v.statement.verdict} by ${v.by} (${v.evidence}): ${v.statement.reason}`).join('')}`),
      ...(execution.report?.steps ?? []).map((step) => `  step       ${step.title}: exit ${String(step.exit)} in ${String(step.ms)} ms`),
      ...(execution.report?.files ?? []).map((file) => `  file       ${file.path} ${String(file.size)} bytes ${file.sha256}`),
      ...found.receipts.map((receipt) => `  receipt    ${receipt.receipt_id} ${receipt.kind} at index ${String(receipt.index)}`),
    ].join('\n'),
  )
  return yes
}

export async function executionsCancel(context: Context, id: string): Promise<number> {
  const { folder } = folderFor(context)
  const answer = await askBroker(folder.controlSocket, 'cancel', id)
  show(context, answer, () => `${id} is ${String(answer['state'])}`)
  return yes
}

export function receiptsList(context: Context, limit: number): number {
  const { folder } = folderFor(context)
  const rows = withViews(folder, [], (views) => {
    const { size } = views.logHead()
    return views.receipts(Math.max(0, size - limit), limit).map(({ jws: _, ...row }) => row)
  })
  const now = Date.now()
  show(context, { receipts: rows }, () => table(['index', 'receipt', 'kind', 'execution', 'when'], rows.map((r) => [String(r.index), r.id, r.kind, r.execution ?? '', ago(r.at_ms, now)])))
  return yes
}

/** The log as an auditor takes it away: each entry byte for byte, in order. */
export function receiptsExport(context: Context): number {
  const { folder } = folderFor(context)
  return withViews(folder, yes, (views) => {
    const { size } = views.logHead()
    for (let from = 0; from < size; from += 1000) for (const row of views.receipts(from, Math.min(1000, size - from))) context.say(row.jws)
    return yes
  })
}

export function receiptsShow(context: Context, text: string, jws: boolean): number {
  const { folder } = folderFor(context)
  const id = parseId('rcpt', text)
  const found = withViews(folder, null, (views) => {
    const receipt = id === null ? null : views.receipt(id)
    return receipt === null || id === null ? null : { receipt, disclosures: views.disclosures(id) }
  })
  if (found === null) throw new WritError('not_found', `There is no receipt ${text} in this ledger.`)
  if (jws) {
    context.say(found.receipt.jws)
    return yes
  }
  const claims = parsePayload(parseCompact(found.receipt.jws, 'writ-receipt+jwt').payloadBytes)
  const disclosed = found.disclosures.map((disclosure) => JSON.parse(Buffer.from(disclosure, 'base64url').toString('utf8')) as unknown)
  show(context, { ...found.receipt, claims, disclosed }, () =>
    [`${found.receipt.id}  ${found.receipt.kind} at index ${String(found.receipt.index)}`, `digest ${found.receipt.digest}`, JSON.stringify(claims, null, 2), 'withheld from callers, by disclosure:', ...disclosed.map((one) => `  ${JSON.stringify((one as unknown[]).slice(1))}`)].join('\n'),
  )
  return yes
}

export function keysShow(context: Context, fingerprintOnly: boolean): number {
  const config = configOf(context)
  const keys = openKeys(config.keys)
  if (fingerprintOnly) {
    show(context, { root_thumbprint: keys.fingerprint() }, () => keys.fingerprint())
    return yes
  }
  show(context, { root_thumbprint: keys.fingerprint(), key_set: keys.jwt, jwks: keys.jwks() }, () =>
    [
      `root  ${keys.fingerprint()}`,
      table(['role', 'kid', 'from', 'until'], keys.set.keys.map((key) => [key.role, key.kid, String(key.from), key.until === null ? '' : String(key.until)])),
    ].join('\n'),
  )
  return yes
}

export async function status(context: Context): Promise<number> {
  const { folder, config } = folderFor(context)
  const answer = await askBroker(folder.controlSocket, 'status').catch((failure: unknown) => {
    if (failure instanceof WritError && failure.code === 'broker_unreachable') return null
    throw failure
  })
  if (answer === null) {
    show(context, { running: false, configuration: config.path }, () => `No broker runs for ${config.path}; the first client starts one.`)
    return no
  }
  const policy = answer['policy'] as { generation: { number: number; digest: string } | null; packs: { pack: string; layer: string; kind: string }[]; refused: { file: string; line: number; message: string }[] }
  const configuration = answer['configuration'] as { ok: boolean; problem?: string }
  show(context, { broker: true, ...answer }, () =>
    [
      `Broker ${String(answer['version'])}, pid ${String(answer['pid'])}, since ${String(answer['started'])}`,
      `  executions   ${String(answer['running'])} running, ${String(answer['queued'])} queued, ${String(answer['awaiting_approval'])} awaiting approval`,
      `  connections  ${String(answer['connections'])}`,
      `  receipts     ${String(answer['receipts'])}`,
      `  policy       ${policy.generation === null ? 'NONE IN FORCE: everything is denied' : `generation ${String(policy.generation.number)} ${policy.generation.digest}`}`,
      ...policy.packs.map((pack) => `               ${pack.pack} (${pack.layer}, ${pack.kind})`),
      ...policy.refused.map((finding) => `               REFUSED ${finding.file}:${String(finding.line)} ${finding.message}`),
      ...(configuration.ok ? [] : [`  configuration REFUSED ${configuration.problem ?? ''}`]),
      ...(answer['room'] === 'ok' ? [] : ['  DISK         low: no new execution begins until there is room']),
    ].join('\n'),
  )
  return policy.generation === null || policy.refused.length > 0 || !configuration.ok ? no : yes
}

export async function stopBroker(context: Context): Promise<number> {
  const { folder } = folderFor(context)
  try {
    await askBroker(folder.controlSocket, 'stop')
  } catch (failure) {
    if (failure instanceof WritError && failure.code === 'broker_unreachable') {
      show(context, { stopped: false }, () => 'No broker runs.')
      return no
    }
    throw failure
  }
  for (let waited = 0; waited < 200; waited++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    const answers = await askBroker(folder.controlSocket, 'status').then(
      () => true,
      () => false,
    )
    if (!answers) {
      show(context, { stopped: true }, () => 'The broker has stopped.')
      return yes
    }
  }
  throw new WritError('broker_unreachable', 'The broker was told to stop and is still ending its runs.')
}


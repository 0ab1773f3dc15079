import { canonical, digestJson, digestOf } from '../digest.ts'
import type { Digest, Json, JsonObject } from '../digest.ts'
import type { Verdict } from '../approval/approval.ts'
import type { FinalState, RunReport } from '../execution/execution.ts'
import type { TestReport } from '../execution/report/report.ts'
import type { ExecutionId } from '../id.ts'
import { parseCompact, parsePayload } from '../jws.ts'
import type { Plan } from '../plan/plan.ts'
import type { Decision, Generation } from '../policy/policy.ts'
import type { Token } from '../request/token.ts'
import type { Keys } from './keys.ts'
import { planSubject } from './schema.ts'
import type { Account } from './receipt.ts'
import { createFrontier } from './tree.ts'

/**
 * One builder for each kind of receipt made now, and the only place that says what stands in clear and what is salted
 * (docs/receipts.md). In clear stands nothing of image, services, hosts, credential names, executor,
 * rule ids or approvers, and no text of a workload.
 */

/** The run an account is about. */
export interface RunRef {
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly plan_digest: Digest
  /** What the client says of itself. */
  readonly asserted: { readonly client: string; readonly version: string }
}

/** An earlier receipt: the digest of its JWS and its index in the log. */
export interface ReceiptRef {
  readonly digest: Digest
  readonly index: number
}

/** Bytes below which a digest can be undone by guessing. */
const guessable = 4096
const longestList = 8
const longestText = 256

/**
 * A decision of phase `execution`. `policy` is the digest of the generation that decided; `approvals` are the receipts
 * of exactly the verdicts policy was given (`approvalsUsed`): none where nothing was required, or it does not allow.
 */
export function decisionAccount(
  run: RunRef,
  decision: Decision,
  policy: Digest,
  approvals: readonly ReceiptRef[],
): Account {
  const { plan } = run
  const clear = {
    invocationId: run.execution,
    result: decision.effect,
    decision: decision.id,
    target_ref: plan.target.ref,
    intent: plan.intent,
    isolation: plan.statement.isolation,
    lanes: [...new Set(plan.credentials.map((credential) => credential.lane))].sort(),
    generation: decision.generation,
    policy,
    // Under the plan's nonce: what is salted below stands in the input too, and a bare digest of it could be guessed at.
    input: digestJson([plan.nonce, decision.input_digest]),
    requirement: decision.requirement_digest,
    approvals: decision.requirement_digest === null ? [] : approvals.map(({ digest, index }) => ({ digest, index })),
  }
  const salted = {
    rules: decision.findings.map((finding) => finding.id),
    error: decision.error,
    image: plan.image,
    sandbox: digestJson(plan.engine),
    services: plan.services.map((service) => ({ name: service.name, url: service.url })),
    hosts: plan.hosts,
    credentials: plan.credentials.map((credential) => credential.name),
    executor: plan.executor,
    limits: { ...plan.limits, ...decision.limits },
  }
  return account('decision', decision.at_ms, { run, clear, salted, asserted: claimed(run) })
}

/** What the receipt of a verdict names it by: the digest of the approver's JWS, or of the broker's own record. */
export function statementDigest({ jws, statement }: Pick<Verdict, 'jws' | 'statement'>): Digest {
  return digestOf(jws ?? canonical(statement))
}

/** Of the receipts of a run those of the verdicts with these statements: what its final decision rests on. */
export function approvalsUsed(
  receipts: readonly (ReceiptRef & { readonly jws: string })[],
  statements: ReadonlySet<Digest>,
): readonly ReceiptRef[] {
  return receipts.flatMap(({ digest, index, jws }) => {
    const { predicate } = parsePayload(parseCompact(jws, 'writ-receipt+jwt').payloadBytes) as {
      readonly predicate?: JsonObject
    }
    const used =
      predicate?.['kind'] === 'approval' &&
      predicate['verdict'] === 'approve' &&
      (statements as ReadonlySet<Json | undefined>).has(predicate['statement'])
    return used ? [{ digest, index }] : []
  })
}

/** One person's verified answer. */
export function approvalAccount(run: RunRef, verdict: Verdict): Account {
  const { statement } = verdict
  const clear = {
    invocationId: run.execution,
    verdict: statement.verdict,
    stage: statement.stage,
    evidence: verdict.evidence,
    statement: statementDigest(verdict),
    requirement: statement.requirement,
  }
  const salted = { approver: verdict.by, roles: verdict.roles, reason: statement.reason }
  return account('approval', verdict.at_ms, { run, clear, salted })
}

/** How an execution ended. `decision` is the receipt of its final decision, `report` null where nothing started. */
export function outcomeAccount(
  run: RunRef,
  end: {
    readonly status: FinalState
    readonly ran: boolean
    readonly report: RunReport | null
    readonly decision: ReceiptRef
    readonly revocation: 'done' | 'pending'
    readonly at_ms: number
  },
): Account {
  const { report } = end
  const tests = report?.tests ?? null
  const clear = {
    invocationId: run.execution,
    decisionRef: { digest: end.decision.digest, index: end.decision.index },
    status: end.status,
    // What was sent and never heard of again may have happened.
    effect: end.ran ? (end.status === 'unknown' ? 'dispatched' : 'observed') : 'none',
    exits: end.ran ? (report?.steps ?? []).map((step) => step.exit) : [],
    counts: {
      output_bytes: report?.output.bytes ?? 0,
      dropped_bytes: report?.output.dropped_bytes ?? 0,
      redactions: report?.output.redactions ?? 0,
      egress_allowed: report?.egress.allowed ?? 0,
      egress_blocked: report?.egress.blocked ?? 0,
      files: report?.files.length ?? 0,
      withheld_files: report?.withheld_files ?? 0,
    },
    revocation: end.revocation,
    isolation: end.ran ? (report?.isolation_applied ?? null) : null,
  }
  const salted = {
    files: (report?.files ?? []).map(({ path, sha256, size }) => ({ path, sha256, size })),
    output: report?.output.sha256 ?? null,
    egress: (report?.egress.refusals ?? []).map(({ code, service, count }) => ({ code, service, count })),
    reason: report?.reason ?? null,
    ...(tests === null ? {} : { tests: digestJson(tests) }),
  }
  const outputs = (end.ran ? (report?.files ?? []) : [])
    .filter((file) => file.size >= guessable)
    .map((file, i) => ({ name: `output-${i + 1}`, digest: file.sha256 }))
  return account('outcome', end.at_ms, {
    run,
    clear,
    salted,
    asserted: claimedTests(tests),
    ...(outputs.length === 0 ? {} : { subjects: outputs }),
  })
}

/** Counts that the workload wrote, under `asserted` and never beside what Writ saw; names and messages stay out. */
function claimedTests(tests: TestReport | null): JsonObject {
  if (tests === null) return {}
  return { tests_passed: tests.passed, tests_failed: tests.failed, tests_skipped: tests.skipped }
}

/** What was refused in a period: counts by code, and the tree root over the digests of the refused requests' inputs. */
export function denialsAccount(period: {
  readonly from_ms: number
  readonly until_ms: number
  readonly counts: Readonly<Record<string, number>>
  readonly inputs: readonly Digest[]
  readonly callers: readonly string[]
}): Account {
  const frontier = createFrontier()
  for (const input of period.inputs) frontier.append(input)
  const root = frontier.root()
  const counts = countsByCode(period.counts)
  const clear = {
    from: Math.floor(period.from_ms / 1000),
    until: Math.floor(period.until_ms / 1000),
    counts: Object.keys(counts).length > longestList ? manifestOf(counts, Object.keys(counts).length) : counts,
    inputs: { root: root.toString('base64'), count: period.inputs.length },
  }
  const salted = { callers: period.callers, ...(clear.counts === counts ? {} : { counts }) }
  const subjects = [{ name: 'inputs', digest: `sha256:${root.toString('hex')}` as Digest }]
  return account('denials', period.until_ms, { clear, salted, subjects })
}

/** Codes come from policies; what is not spelled like one is counted together, so that no spelling can stop a receipt. */
function countsByCode(given: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  const counts = new Map<string, number>()
  for (const [name, count] of Object.entries(given)) {
    const code = /^[a-z][a-z0-9_.-]{0,63}$/.test(name) ? name : 'other'
    counts.set(code, (counts.get(code) ?? 0) + count)
  }
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A policy generation comes into force. */
export function policyAccount(generation: Pick<Generation, 'number' | 'digest' | 'packs'>, atMs: number): Account {
  const clear = {
    what: 'generation',
    reason: 'activated',
    generation: generation.number,
    modules: generation.packs.map((pack) => pack.digest),
  }
  const salted = { packs: generation.packs.map(({ pack, layer, kind, digest }) => ({ pack, layer, kind, digest })) }
  return account('policy', atMs, { clear, salted, subjects: [{ name: 'policy', digest: generation.digest }] })
}

/** The set of people who may approve changes; who they are is salted. */
export function approversAccount(
  set: { readonly digest: Digest; readonly approvers: readonly JsonObject[] },
  atMs: number,
): Account {
  const clear = { what: 'approvers', reason: 'changed', count: set.approvers.length }
  return account('policy', atMs, {
    clear,
    salted: { approvers: set.approvers },
    subjects: [{ name: 'approvers', digest: set.digest }],
  })
}

/** A token of a caller was made or revoked. Whose it is, and what it lets be, is salted; its hash stands nowhere. */
export function tokenAccount(token: Token, reason: 'created' | 'revoked', atMs: number): Account {
  const { id, tenant, subject, agent, roles, created_at_ms, expires_at_ms } = token
  return account('policy', atMs, {
    clear: { what: 'token', reason },
    salted: { id, tenant, subject: { ...subject }, agent, roles: [...roles], created_at_ms, expires_at_ms },
    // Over the whole record: the hash in it makes the digest as unguessable as the token.
    subjects: [{ name: 'token', digest: digestJson(token) }],
  })
}

/** The receipt key changes after `index`; `change` is the root's signed word on it. */
export function keyAccount(keys: Keys, index: number, change: string, atMs: number): Account {
  const outgoing = keys.set.keys.find((key) => key.role === 'receipt' && key.until === index + 1)
  const incoming = keys.set.keys.find((key) => key.role === 'receipt' && key.from === index + 1)
  return {
    kind: 'key',
    subject: null,
    agent: null,
    task: null,
    happened_at_ms: atMs,
    subjects: [{ name: 'change', digest: digestOf(change) }],
    // Not cut to length like other texts: the change has to stand in the log whole, for verifiers that have no later key set.
    clear: { reason: 'rotated', outgoing: outgoing?.kid ?? '', incoming: incoming?.kid ?? '', change },
    salted: {},
    asserted: {},
  }
}

/** The first entry of a log: its root and its first keys. */
export function genesisAccount(keys: Keys, atMs: number): Account {
  const first = keys.set.keys.filter((key) => key.from === 0).map(({ kid, role, from }) => ({ kid, role, from }))
  return account('genesis', atMs, {
    clear: { root: keys.fingerprint(), keys: first },
    salted: {},
    subjects: [{ name: 'keys', digest: digestOf(keys.jwt) }],
  })
}

function account(
  kind: Account['kind'],
  happenedAtMs: number,
  parts: {
    readonly run?: RunRef
    readonly clear: JsonObject
    readonly salted: JsonObject
    readonly asserted?: JsonObject
    readonly subjects?: Account['subjects']
  },
): Account {
  const { run } = parts
  const long: Record<string, Json> = {}
  const clear = Object.fromEntries(Object.entries(parts.clear).map(([name, value]) => [name, fit(name, value, long)]))
  const subjects = parts.subjects ?? (run === undefined ? [] : [{ name: planSubject, digest: run.plan_digest }])
  const many = subjects.length > longestList
  if (many) long['subject'] = subjects.map(({ name, digest }) => ({ name, digest }))
  return {
    kind,
    subject: run === undefined ? null : identifier(run.plan.task.owner),
    agent: run === undefined ? null : identifier(run.plan.task.agent),
    task: run === undefined ? null : run.plan.task.id,
    happened_at_ms: happenedAtMs,
    subjects: many ? [{ name: `${subjects.length} subjects`, digest: digestJson(long['subject']) }] : subjects,
    clear,
    // The whole of what was too long is kept where auditors find it.
    salted: Object.keys(long).length === 0 ? parts.salted : { ...parts.salted, manifests: long },
    asserted: parts.asserted ?? {},
  }
}

/** Beyond 8 entries a list, beyond 256 bytes a text is its digest and its length: a receipt fits 16 KiB by construction. */
function fit(name: string, value: Json, long: Record<string, Json>): Json {
  const length = Array.isArray(value) ? value.length : typeof value === 'string' ? Buffer.byteLength(value) : 0
  if (length <= (Array.isArray(value) ? longestList : longestText)) return value
  long[name] = value
  return manifestOf(value, length)
}

function manifestOf(value: Json, count: number): JsonObject {
  return { digest: digestJson(value), count }
}

function identifier(text: string): string {
  return Buffer.byteLength(text) <= longestText ? text : `urn:sha256:${digestOf(text).slice('sha256:'.length)}`
}

/** The goal's digest takes the plan's nonce in, so that a short goal cannot be guessed from it. */
function claimed(run: RunRef): JsonObject {
  return {
    client: brief(run.asserted.client),
    version: brief(run.asserted.version),
    goal: digestJson([run.plan.nonce, run.plan.task.goal]),
  }
}

/** At most 64 characters that I-JSON and a terminal both bear. */
function brief(text: string): string {
  return text
    .slice(0, 64)
    .toWellFormed()
    .replace(/[\p{C}\p{Z}]/gu, ' ')
    .trim()
}

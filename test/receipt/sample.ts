import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Statement, Verdict } from '../../src/approval/approval.ts'
import { canonical, digestJson, digestOf } from '../../src/digest.ts'
import type { Digest } from '../../src/digest.ts'
import type { RunReport } from '../../src/execution/execution.ts'
import { newId } from '../../src/id.ts'
import type { ApprovalId } from '../../src/id.ts'
import { generateKey, signCompact } from '../../src/jws.ts'
import type { SigningKey } from '../../src/jws.ts'
import type { Plan } from '../../src/plan/plan.ts'
import type { Decision, Generation, Requirement } from '../../src/policy/policy.ts'
import type { ReceiptRef, RunRef } from '../../src/receipt/account.ts'
import { approvalAccount, decisionAccount, outcomeAccount, policyAccount } from '../../src/receipt/account.ts'
import { initKeys, openKeys, rotate } from '../../src/receipt/keys.ts'
import type { Keys } from '../../src/receipt/keys.ts'
import type { Account, LogHead, SignedReceipt } from '../../src/receipt/receipt.ts'
import { buildClaims } from '../../src/receipt/claims.ts'
import { dueAccount, openSigner } from '../../src/receipt/sign.ts'
import { createFrontier } from '../../src/receipt/tree.ts'

/** Values like those of a running broker, and a log that only grows, for the tests of receipts. */

const folders = mkdtempSync(join(tmpdir(), 'writ-receipt-test-'))

/** Removes the key folders of every log made here; for `afterAll`. */
export function removeFolders(): void {
  rmSync(folders, { recursive: true, force: true })
}

export const startMs = Date.UTC(2026, 10, 23, 12)

const requirement: Requirement = {
  stages: [{ id: 'owner', roles: ['approver'], min: 1 }],
  exclude: ['agent', 'subject'],
  evidence: ['key'],
  request_ttl_s: 3600,
  execute_within_s: 600,
}

export function samplePlan(nonce: string): Plan {
  return {
    schema: 'writ.plan/v1',
    nonce,
    tenant: 'default',
    task: {
      id: newId('task'),
      revision: 1,
      owner: 'ada',
      agent: 'assistant-7',
      project_name: 'billing',
      goal: 'rotate the staging token',
      context: '',
      inputs: { script: 'main.ts' },
    },
    target: { ref: 'vault-staging', about: 'Test bench', labels: { env: 'staging' } },
    intent: 'run_script',
    code_origin: 'caller',
    executor: 'isolate-secretname',
    engine: { heap_mb: 128 },
    image: {
      name: 'registry.internal/secret-image',
      id: `sha256:${'1'.repeat(64)}`,
      store: 'graphdriver',
      digest: null,
      arch: 'amd64',
      agent: digestOf('agent'),
    },
    runtime: 'javascript',
    environment: [],
    steps: [{ title: 'run main.ts', argv: ['node', 'main.ts'], success: [0] }],
    stdin: null,
    files: [],
    services: [
      {
        name: 'vault-secretservice',
        about: 'API',
        url: 'https://vault.internal:8200',
        credential: 'vault-secrettoken',
        addresses: [],
        ca: null,
      },
    ],
    hosts: [],
    credentials: [
      {
        name: 'vault-secrettoken',
        source: { kind: 'file', ref: 'x' },
        inject: { kind: 'bearer' },
        lane: 'placeholder',
        exposure: 'none',
      },
    ],
    limits: { wall_s: 60, cpu_s: 30, memory_mb: 128, output_kb: 64, artifact_kb: 64, egress_requests: 10 },
    statement: { isolation: 'process', egress: 'gateway', delivery: ['files'], kill: 'confirmed' },
    entries: [],
  }
}

export function sampleRun(nonce = '00112233445566778899aabbccddeeff'): RunRef {
  const plan = samplePlan(nonce)
  return {
    execution: newId('exec'),
    plan,
    plan_digest: digestJson(plan),
    asserted: { client: 'claude-code', version: '3.1' },
  }
}

export const generation: Pick<Generation, 'number' | 'digest' | 'packs'> = {
  number: 1,
  digest: digestOf('generation 1'),
  packs: [{ pack: 'org', layer: 'org', kind: 'guard', module: new Uint8Array(), digest: digestOf('org'), rules: {} }],
}

export function sampleDecision(effect: Decision['effect'], atMs: number, asks = false): Decision {
  return {
    schema: 'writ.decision/v1',
    id: newId('dec'),
    at_ms: atMs,
    phase: 'execution',
    effect,
    error: effect === 'error' ? 'deadline' : null,
    findings: [
      { id: 'org/secretrule', layer: 'org', kind: 'grant', code: 'ok', title: 't', at: 'a.rego:1', message: 'm' },
    ],
    grants: [],
    requirement: asks ? requirement : null,
    requirement_digest: asks ? digestJson(requirement) : null,
    limits: {},
    credentials: ['vault-secrettoken'],
    generation: generation.number,
    policy: null,
    modules: [],
    input_digest: digestOf(`input ${atMs}`),
    reasons: [],
  }
}

export function sampleVerdict(run: RunRef, approver: SigningKey, origin: string, atMs: number): Verdict {
  const statement: Statement = {
    typ: 'writ-approval/v1',
    log_origin: origin,
    approval_id: newId('apr') satisfies ApprovalId,
    execution_id: run.execution,
    plan: run.plan_digest,
    requirement: digestJson(requirement),
    stage: 'owner',
    verdict: 'approve',
    shown: digestOf('shown'),
    reason: 'looks right',
    nonce: 'n'.repeat(22),
    issued_at: Math.floor(atMs / 1000),
    expires_at: Math.floor(atMs / 1000) + 600,
    max_uses: 1,
  }
  const jws = signCompact('writ-approval+jwt', canonical(statement), approver)
  return { statement, by: 'grace-secretapprover', roles: ['approver'], evidence: 'key', jws, at_ms: atMs }
}

export const sampleReport: RunReport = {
  steps: [{ title: 'run main.ts', exit: 0, ms: 12 }],
  files: [
    { path: 'secretreport.txt', sha256: digestOf('small'), size: 5 },
    { path: 'large.bin', sha256: digestOf('large'), size: 9000 },
  ],
  output: { bytes: 120, dropped_bytes: 0, redactions: 1, sha256: digestOf('out') },
  egress: { allowed: 2, blocked: 1, refusals: [{ code: 'not_allowed', service: 'vault-secretservice', count: 1 }] },
  isolation_applied: 'process',
  reason: null,
  withheld_files: 0,
}

/** A payload open to any change. */
export type Changeable = { predicate: Record<string, unknown> & { log: Record<string, unknown> } } & Record<
  string,
  unknown
>

/** A receipt log in memory: signs each account on the head it will have, as the ledger does. */
export class SampleLog {
  readonly entries: SignedReceipt[] = []
  keys: Keys
  readonly dir: string
  readonly #frontier = createFrontier()
  #nowMs = startMs

  constructor(from?: SampleLog, size = 0) {
    this.dir = join(mkdtempSync(join(folders, 'log-')), 'keys')
    if (from === undefined) {
      this.keys = initKeys(this.dir, startMs)
      this.due()
    } else {
      cpSync(from.dir, this.dir, { recursive: true })
      this.keys = openKeys(this.dir)
      this.#nowMs = from.nowMs
      for (const receipt of from.entries.slice(0, size)) this.push(receipt)
    }
  }

  /** Another history: the first `size` entries of this one, with the same keys. */
  fork(size: number): SampleLog {
    return new SampleLog(this, size)
  }

  /** A receipt whose claims are changed before any key signs it: what an operator who lies could put into the log. */
  forge(
    account: Account,
    change: (payload: Changeable) => void,
    key: SigningKey = this.keys.receiptKey(this.head().size),
  ): SignedReceipt {
    this.#nowMs += 1000
    const payload = structuredClone(buildClaims(account, this.head(), this.#nowMs).payload) as Changeable
    change(payload)
    const jws = signCompact('writ-receipt+jwt', JSON.stringify(payload), key)
    return this.push({
      id: newId('rcpt'),
      index: this.head().size,
      kind: account.kind,
      jws,
      digest: digestOf(jws),
      disclosures: [],
    })
  }

  rotate(): void {
    this.keys = rotate(this.dir, this.head().size, this.#nowMs)
    this.due()
  }

  get origin(): string {
    return openSigner(this.keys, { issuer: null }).origin
  }

  get nowMs(): number {
    return this.#nowMs
  }

  head(): LogHead {
    return { origin: this.origin, size: this.#frontier.size, root: this.#frontier.root().toString('base64') }
  }

  add(account: Account): SignedReceipt {
    this.#nowMs += 1000
    const receipt = openSigner(this.keys, { issuer: null }).sign(account, this.head(), this.#nowMs)
    return this.push(receipt)
  }

  push(receipt: SignedReceipt): SignedReceipt {
    this.entries.push(receipt)
    this.#frontier.append(receipt.jws)
    return receipt
  }

  due(): void {
    const account = dueAccount(this.keys, this.#frontier.size, this.#nowMs)
    if (account !== null) this.add(account)
  }

  get list(): readonly { readonly index: number; readonly jws: string }[] {
    return this.entries.map(({ index, jws }) => ({ index, jws }))
  }
}

export function ref(receipt: SignedReceipt): ReceiptRef {
  return { digest: receipt.digest, index: receipt.index }
}

export interface SampleParts {
  readonly log: SampleLog
  readonly approver: SigningKey
  readonly plain: { readonly run: RunRef; readonly decision: SignedReceipt; readonly outcome: SignedReceipt }
  readonly asked: {
    readonly run: RunRef
    readonly verdict: Verdict
    readonly pending: SignedReceipt
    readonly approval: SignedReceipt
    readonly decision: SignedReceipt
    readonly outcome: SignedReceipt
  }
}

/** An honest log of nine entries: genesis, policy, a run allowed at once, a run that a person approved, a denial. */
export function sampleLog(): SampleParts {
  const log = new SampleLog()
  const approver = generateKey()
  log.add(policyAccount(generation, log.nowMs))
  const policy: Digest = generation.digest
  const run = sampleRun()
  const decision = log.add(decisionAccount(run, sampleDecision('allow', log.nowMs), policy, []))
  const outcome = log.add(
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report: sampleReport,
      decision: ref(decision),
      revocation: 'done',
      at_ms: log.nowMs,
    }),
  )
  const second = sampleRun('ffeeddccbbaa99887766554433221100')
  const pending = log.add(decisionAccount(second, sampleDecision('pending', log.nowMs, true), policy, []))
  const verdict = sampleVerdict(second, approver, log.origin, log.nowMs)
  const approval = log.add(approvalAccount(second, verdict))
  const final = log.add(decisionAccount(second, sampleDecision('allow', log.nowMs, true), policy, [ref(approval)]))
  const end = log.add(
    outcomeAccount(second, {
      status: 'failed',
      ran: true,
      report: sampleReport,
      decision: ref(final),
      revocation: 'done',
      at_ms: log.nowMs,
    }),
  )
  log.add(decisionAccount(sampleRun(), sampleDecision('deny', log.nowMs), policy, []))
  return {
    log,
    approver,
    plain: { run, decision, outcome },
    asked: { run: second, verdict, pending, approval, decision: final, outcome: end },
  }
}

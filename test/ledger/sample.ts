import { generateKeyPairSync, sign } from 'node:crypto'
import type { Approval, Verdict } from '../../src/approval/approval.ts'
import type { Clock } from '../../src/clock.ts'
import { digestJson, digestOf } from '../../src/digest.ts'
import type { Digest } from '../../src/digest.ts'
import type { FinalState, RunReport } from '../../src/execution/execution.ts'
import { newId } from '../../src/id.ts'
import type { ApprovalId, ExecutionId } from '../../src/id.ts'
import type { Entry } from '../../src/ledger/ledger.ts'
import type { Plan } from '../../src/plan/plan.ts'
import type { Decision, Effect, Requirement } from '../../src/policy/policy.ts'
import type { Account, ReceiptKind, ReceiptSigner } from '../../src/receipt/receipt.ts'
import type { Task } from '../../src/request/task.ts'
import type { Token } from '../../src/request/token.ts'

/** A clock a test moves. */
export function handClock(start = 1_800_000_000_000): Clock & { set(ms: number): void } {
  let now = start
  return { now: () => now, monotonic: () => now, set: (ms) => (now = ms) }
}

const origin = 'urn:writ:test'

/** Signs with a real Ed25519 key and says nothing but kind, head and task: what a ledger depends on. */
export function testSigner(named = origin): ReceiptSigner {
  const { privateKey } = generateKeyPairSync('ed25519')
  const header = Buffer.from('{"alg":"Ed25519","typ":"writ-receipt+jwt"}').toString('base64url')
  return {
    origin: named,
    sign(account, head, nowMs) {
      const claims = {
        iat: Math.floor(nowMs / 1000),
        txn: account.task,
        predicate: { kind: account.kind, log: head, ...account.clear },
      }
      const text = `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
      const jws = `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`
      const disclosures = Object.entries(account.salted).map((pair) =>
        Buffer.from(JSON.stringify(pair)).toString('base64url'),
      )
      return { id: newId('rcpt'), index: head.size, kind: account.kind, jws, digest: digestOf(jws), disclosures }
    },
  }
}

export function account(kind: ReceiptKind, over: Partial<Account> = {}): Account {
  return {
    kind,
    subject: null,
    agent: null,
    task: null,
    happened_at_ms: 0,
    subjects: [],
    clear: {},
    salted: {},
    asserted: {},
    ...over,
  }
}

export function signed(kind: ReceiptKind, execution: ExecutionId | null = null, over: Partial<Account> = {}): Entry {
  return { kind: 'sign', execution, account: account(kind, over) }
}

export function sampleTask(over: Partial<Task> = {}): Task {
  return {
    id: newId('task'),
    tenant: 'acme',
    owner: 'ada',
    agent: 'agent',
    project_name: 'p',
    goal: 'g',
    target_ref: 'sandbox',
    intent: 'run_script',
    inputs: {},
    context: '',
    constraints: { time_s: null, memory_mb: null },
    files: [],
    revision: 1,
    created_at_ms: 1,
    ...over,
  }
}

export function samplePlan(task: Task): { readonly plan: Plan; readonly digest: Digest } {
  const plan: Plan = {
    schema: 'writ.plan/v1',
    nonce: newId('dec'),
    tenant: task.tenant,
    task: {
      id: task.id,
      revision: task.revision,
      owner: task.owner,
      agent: task.agent,
      project_name: task.project_name,
      goal: task.goal,
      context: task.context,
      inputs: task.inputs,
    },
    target: { ref: task.target_ref, about: 'a', labels: {} },
    intent: task.intent,
    code_origin: 'caller',
    executor: 'isolate',
    engine: {},
    image: null,
    runtime: 'javascript',
    environment: [],
    steps: [{ title: 's', argv: ['main.js'], success: [0] }],
    stdin: null,
    files: task.files,
    services: [],
    hosts: [],
    credentials: [],
    limits: { wall_s: 1, cpu_s: 1, memory_mb: 1, output_kb: 1, artifact_kb: 1, egress_requests: 1 },
    statement: { isolation: 'process', egress: 'closed', delivery: [], kill: 'confirmed' },
    entries: [],
  }
  return { plan, digest: digestJson(plan) }
}

export function sampleDecision(effect: Effect): Decision {
  return {
    schema: 'writ.decision/v1',
    id: newId('dec'),
    at_ms: 1,
    phase: 'execution',
    effect,
    error: null,
    findings: [],
    grants: [],
    requirement: null,
    requirement_digest: null,
    limits: {},
    credentials: [],
    generation: 1,
    policy: null,
    modules: [],
    input_digest: digestOf('input'),
    reasons: [],
  }
}

export function sampleReport(over: Partial<RunReport> = {}): RunReport {
  return {
    steps: [{ title: 's', exit: 0, ms: 1 }],
    files: [],
    output: { bytes: 0, dropped_bytes: 0, redactions: 0, sha256: digestOf('') },
    egress: { allowed: 0, blocked: 0, refusals: [] },
    isolation_applied: 'process',
    reason: null,
    withheld_files: 0,
    ...over,
  }
}

/** A token whose hash is that of bytes nobody else has. */
export function sampleToken(over: Partial<Token> = {}): Token {
  const id = newId('tok')
  return {
    id,
    hash: digestOf(id),
    tenant: 'acme',
    subject: { type: 'user', id: 'ada' },
    agent: 'chat',
    roles: ['developer'],
    created_at_ms: 1,
    expires_at_ms: 2,
    ...over,
  }
}

/** One task with one execution, and the batches its life is made of. */
export interface Life {
  readonly task: Task
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly digest: Digest
  /** Task and plan, decided and queued. */
  readonly queue: readonly Entry[]
  /** Decided again and started. */
  readonly start: readonly Entry[]
  readonly end: (state: FinalState, report?: RunReport) => readonly Entry[]
}

export function life(task: Task = sampleTask()): Life {
  const execution = newId('exec')
  const { plan, digest } = samplePlan(task)
  const first = sampleDecision('allow')
  const final = sampleDecision('allow')
  return {
    task,
    execution,
    plan,
    digest,
    queue: [
      { kind: 'task', task },
      { kind: 'planned', execution, plan, digest, key: null },
      { kind: 'decided', execution, decision: first, input: '{}' },
      { kind: 'state', execution, state: 'queued', ran: false, reasons: [] },
      signed('decision', execution, { task: task.id, salted: { rule: 'r' } }),
    ],
    start: [
      { kind: 'decided', execution, decision: final, input: '{}' },
      signed('decision', execution, { task: task.id }),
      { kind: 'permit_spent', execution, plan: digest, decision: final.id },
      { kind: 'state', execution, state: 'running', ran: true, reasons: [] },
    ],
    end: (state, report = sampleReport()) => [
      { kind: 'outcome', execution, report },
      { kind: 'state', execution, state, ran: true, reasons: [] },
      signed('outcome', execution, { task: task.id }),
    ],
  }
}

const requirement: Requirement = {
  stages: [{ id: 'one', roles: ['approver'], min: 1 }],
  exclude: ['agent'],
  evidence: ['key'],
  request_ttl_s: 60,
  execute_within_s: 60,
}

export function sampleApproval(
  of: Pick<Life, 'execution' | 'digest' | 'task'>,
  id: ApprovalId = newId('apr'),
): Approval {
  return {
    id,
    execution: of.execution,
    tenant: of.task.tenant,
    plan: of.digest,
    requirement,
    requirement_digest: digestJson(requirement),
    excluded: { subjects: [], agents: ['agent'] },
    nonce: 'n',
    opened_at_ms: 1,
    expires_at_ms: 2,
    execute_by_ms: null,
    state: 'open',
    verdicts: [],
  }
}

export function sampleVerdict(approval: Approval, by: string, verdict: 'approve' | 'reject' = 'approve'): Verdict {
  return {
    statement: {
      typ: 'writ-approval/v1',
      log_origin: origin,
      approval_id: approval.id,
      execution_id: approval.execution,
      plan: approval.plan,
      requirement: approval.requirement_digest,
      stage: 'one',
      verdict,
      shown: digestOf('shown'),
      reason: 'r',
      nonce: approval.nonce,
      issued_at: 1,
      expires_at: 2,
      max_uses: 1,
    },
    by,
    roles: ['approver'],
    evidence: 'key',
    jws: 'a.b.c',
    at_ms: 1,
  }
}

/** Planned and waiting for people. */
export function waiting(
  task: Task = sampleTask(),
): Life & { readonly approval: Approval; readonly open: readonly Entry[] } {
  const of = life(task)
  const approval = sampleApproval(of)
  const open: readonly Entry[] = [
    { kind: 'task', task },
    { kind: 'planned', execution: of.execution, plan: of.plan, digest: of.digest, key: null },
    { kind: 'decided', execution: of.execution, decision: sampleDecision('pending'), input: '{}' },
    signed('decision', of.execution),
    { kind: 'approval_opened', approval },
    { kind: 'state', execution: of.execution, state: 'awaiting_approval', ran: false, reasons: [] },
  ]
  return { ...of, approval, open }
}

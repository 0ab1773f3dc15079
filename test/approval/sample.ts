import type { Approval, Approver, Verdict, VerdictWord } from '../../src/approval/approval.ts'
import { openApproval } from '../../src/approval/requirement.ts'
import { makeStatement } from '../../src/approval/statement.ts'
import { canonical, type Digest, digestJson, digestOf } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import { generateKey, signCompact, type SigningKey } from '../../src/jws.ts'
import { limitSettings } from '../../src/plan/limits.ts'
import type { Plan } from '../../src/plan/plan.ts'
import type { Requirement } from '../../src/policy/policy.ts'
import type { TaskFile } from '../../src/request/task.ts'

export const startMs = Date.UTC(2026, 10, 23, 12)
export const origin = 'urn:writ:test'

export function planWith(over: Partial<Plan> = {}): Plan {
  return {
    schema: 'writ.plan/v1',
    nonce: '00112233445566778899aabbccddeeff',
    tenant: 'default',
    task: {
      id: newId('task'),
      revision: 1,
      owner: 'alice',
      agent: 'local-agent',
      project_name: 'orders',
      goal: 'Count what is late',
      context: '',
      inputs: {},
    },
    target: { ref: 'production', about: 'The same under the rules of production', labels: { env: 'production' } },
    intent: 'run_script',
    code_origin: 'caller',
    executor: 'isolate',
    engine: { heap_mb: 64 },
    image: null,
    runtime: 'javascript',
    environment: [
      { name: 'ORDERS_URL', about: 'Where orders are', value: { kind: 'service', service: 'orders' } },
      { name: 'ORDERS_TOKEN', about: 'Its token', value: { kind: 'placeholder', credential: 'orders-token' } },
      { name: 'MODE', about: 'A mode', value: { kind: 'literal', value: 'dry' } },
    ],
    steps: [{ title: 'Run a.js', argv: ['node', 'a.js'], success: [0] }],
    stdin: null,
    files: [],
    services: [
      {
        name: 'orders',
        about: 'Orders API',
        url: 'https://orders.secret.example:8443/base',
        credential: 'orders-token',
        addresses: ['10.7.0.0/16'],
        ca: '-----BEGIN CERTIFICATE-----',
      },
    ],
    hosts: [],
    credentials: [
      {
        name: 'orders-token',
        source: { kind: 'file', ref: 'vault-path-of-the-token' },
        inject: { kind: 'header', header: 'X-Secret-Header', prefix: '' },
        lane: 'placeholder',
        exposure: 'none',
      },
    ],
    limits: limitSettings().defaults,
    statement: { isolation: 'process', egress: 'gateway', delivery: [], kill: 'confirmed' },
    entries: [{ entry: 'target/production', digest: digestOf('one') }],
    ...over,
  }
}

export const requirement: Requirement = {
  stages: [{ id: 'approver', roles: ['approver'], min: 1 }],
  exclude: ['agent', 'subject'],
  evidence: ['key', 'passkey'],
  request_ttl_s: 86_400,
  execute_within_s: 3600,
}

export function approvalOf(plan: Plan, over: Partial<Requirement> = {}): Approval {
  const asked = { ...requirement, ...over }
  return openApproval({
    execution: newId('exec'),
    plan,
    digest: digestJson(plan),
    requirement: asked,
    requirement_digest: digestJson(asked),
    asking: { subject: { id: plan.task.owner }, agent: { id: plan.task.agent } },
    nowMs: startMs,
  })
}

export interface Person extends Approver {
  readonly signing: SigningKey
}

export function person(subject: string, ...roles: readonly string[]): Person {
  const signing = generateKey()
  return { subject, roles, key: signing.x, signing }
}

export function signed(
  approval: Approval,
  by: Person,
  over: { stage?: string; verdict?: VerdictWord; shown?: Digest; nowMs?: number; origin?: string } = {},
): string {
  const statement = makeStatement({
    approval,
    origin: over.origin ?? origin,
    stage: over.stage ?? 'approver',
    verdict: over.verdict ?? 'approve',
    shown: over.shown ?? digestOf('shown'),
    reason: 'seen',
    nowMs: over.nowMs ?? startMs,
  })
  return signCompact('writ-approval+jwt', canonical(statement), by.signing)
}

export function verdict(
  approval: Approval,
  by: string,
  stage: string,
  word: VerdictWord = 'approve',
  roles: readonly string[] = [stage],
): Verdict {
  return {
    statement: makeStatement({
      approval,
      origin,
      stage,
      verdict: word,
      shown: digestOf('shown'),
      reason: '',
      nowMs: startMs,
    }),
    by,
    roles,
    evidence: 'key',
    jws: null,
    at_ms: startMs,
  }
}

/** A file of a plan and the store that has it. */
export function store(): {
  readonly add: (path: string, content: string | Uint8Array, executable?: boolean) => TaskFile
  readonly bytesOf: (digest: Digest) => Promise<Uint8Array>
} {
  const known = new Map<Digest, Uint8Array>()
  return {
    add(path, content, executable = false) {
      const bytes = Buffer.from(content)
      const sha256 = digestOf(bytes)
      known.set(sha256, bytes)
      return { path, sha256, size: bytes.length, executable }
    },
    bytesOf: async (digest) => await Promise.resolve(known.get(digest) ?? new Uint8Array()),
  }
}

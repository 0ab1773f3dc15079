import { newPlaceholder } from '../../src/credential/placeholder.ts'
import { createRedactor } from '../../src/credential/redact.ts'
import { Secret } from '../../src/credential/secret.ts'
import type { Digest } from '../../src/digest.ts'
import type { EgressResponse } from '../../src/egress/egress.ts'
import { openGateway } from '../../src/egress/gateway.ts'
import type { Patience } from '../../src/egress/upstream.ts'
import { newId } from '../../src/id.ts'
import type { Injection, Plan, PlanService } from '../../src/plan/plan.ts'
import type { Decision, PolicyInput } from '../../src/policy/policy.ts'

export type Call = NonNullable<PolicyInput['context']['call']>

/** A plan with these services and credentials and nothing else of interest. */
export function planOf(
  services: readonly PlanService[],
  bindings: Readonly<Record<string, Injection>>,
  requests = 100,
): Plan {
  return {
    schema: 'writ.plan/v1',
    nonce: '00'.repeat(16),
    tenant: 'default',
    task: {
      id: newId('task'),
      revision: 1,
      owner: 'ann',
      agent: 'test',
      project_name: 'p',
      goal: 'g',
      context: '',
      inputs: {},
    },
    target: { ref: 'sandbox', about: '', labels: {} },
    intent: 'run_script',
    code_origin: 'caller',
    executor: 'isolate',
    engine: {},
    image: null,
    runtime: 'node',
    environment: [],
    steps: [{ title: 'run', argv: ['main.js'], success: [0] }],
    stdin: null,
    files: [],
    services,
    hosts: [],
    credentials: Object.entries(bindings).map(([name, inject]) => ({
      name,
      source: { kind: 'file', ref: name },
      inject,
      lane: 'placeholder',
      exposure: 'none',
    })),
    limits: { wall_s: 30, cpu_s: 30, memory_mb: 128, output_kb: 1024, artifact_kb: 1024, egress_requests: requests },
    statement: { isolation: 'process', egress: 'gateway', delivery: [], kill: 'confirmed' },
    entries: [],
  }
}

export function service(name: string, url: string, rest: Partial<PlanService> = {}): PlanService {
  return { name, about: '', url, credential: null, addresses: ['127.0.0.0/8'], ca: null, ...rest }
}

export function decision(effect: Decision['effect'], code = 'nope'): Decision {
  return {
    schema: 'writ.decision/v1',
    id: newId('dec'),
    at_ms: 0,
    phase: 'egress',
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
    input_digest: `sha256:${'0'.repeat(64)}` as Digest,
    reasons: effect === 'allow' ? [] : [{ code, message: 'secret detail of db.internal', remedy: '', ref: '' }],
  }
}

export interface TestRun {
  readonly gateway: ReturnType<typeof openGateway>
  readonly placeholders: Readonly<Record<string, string>>
  readonly redactor: ReturnType<typeof createRedactor>
  readonly calls: Call[]
  fetch(
    path: string,
    init?: {
      method?: string
      headers?: readonly (readonly [string, string])[]
      body?: string | Uint8Array
      url?: string
      signal?: AbortSignal
      pieces?: boolean
    },
  ): Promise<EgressResponse>
}

export function openRun(options: {
  readonly services: readonly PlanService[]
  readonly bindings?: Readonly<Record<string, Injection>>
  readonly values?: Readonly<Record<string, string>>
  readonly requests?: number
  readonly decide?: (call: Call) => Promise<Decision>
  readonly resolve?: (hostname: string) => Promise<readonly string[]>
  readonly patience?: Patience
}): TestRun {
  const { bindings = {}, values = {} } = options
  const secrets = Object.entries(values).map(([name, value]) => Secret.ingest(name, value))
  const placeholders = Object.fromEntries(secrets.map((secret) => [secret.name, newPlaceholder()]))
  const redactor = createRedactor(secrets.map((value) => ({ name: value.name, value, placeholder: null })))
  const calls: Call[] = []
  const gateway = openGateway({
    plan: planOf(options.services, bindings, options.requests),
    placeholders,
    secrets,
    redactor,
    decide: async (call) => {
      calls.push(call)
      return await (options.decide?.(call) ?? Promise.resolve(decision('allow')))
    },
    ...(options.resolve === undefined ? {} : { resolve: options.resolve }),
    ...(options.patience === undefined ? {} : { patience: options.patience }),
  })
  return {
    gateway,
    placeholders,
    redactor,
    calls,
    fetch: (path, init = {}) =>
      gateway.fetch(
        {
          method: init.method ?? 'GET',
          url: init.url ?? `http://127.0.0.1:3128${path}`,
          headers: init.headers ?? [],
          body: Buffer.from(init.body ?? ''),
          ...(init.pieces === undefined ? {} : { pieces: init.pieces }),
        },
        init.signal ?? new AbortController().signal,
      ),
  }
}

export function codeOf(response: EgressResponse): string | null {
  return response.headers.find(([name]) => name === 'writ-egress')?.[1] ?? null
}

export function textOf(response: EgressResponse): string {
  return Buffer.from(response.body).toString('utf8')
}

export function headerOf(response: EgressResponse, wanted: string): string | undefined {
  return response.headers.find(([name]) => name === wanted)?.[1]
}

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliDecompressSync } from 'node:zlib'
import { Ajv } from 'ajv'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { canonical } from '../../src/digest.ts'
import { compileModule, openInstance } from '../../src/policy/load.ts'
import { merge } from '../../src/policy/merge.ts'
import type { Merged } from '../../src/policy/decision.ts'
import { parseOutput } from '../../src/policy/output.ts'
import { setNames } from '../../src/policy/pack.ts'
import { runWasi } from '../../src/policy/wasi.ts'
import type { Attachment, CompiledPack, PackOutput, Phase, PolicyInput } from '../../src/policy/policy.ts'
import { checkPacks, compilePacks, explainPack, formatFiles, testPacks } from '../../src/policy/tools.ts'
import { caller, input } from './fixtures/input.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const org: Attachment = { pack: 'org', layer: 'org', kind: 'guard', path: join(root, 'policies', 'org') }
const starter: Attachment = { pack: 'starter', layer: 'team', kind: 'grant', path: join(root, 'policies', 'starter') }
const attachments = [org, starter]
const phases: readonly Phase[] = ['request', 'execution', 'approval', 'egress']

let folder = ''
let cacheDir = ''
let packs: readonly CompiledPack[] = []
const evaluate = new Map<string, (value: PolicyInput) => unknown>()

async function load({ pack, module }: CompiledPack): Promise<void> {
  const instance = openInstance(await compileModule(module))
  evaluate.set(pack, (value) => {
    const answer = instance.evaluate(new TextEncoder().encode(canonical(value)).buffer)
    return answer.ok ? answer.value : answer.error
  })
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'writ-packs-'))
  cacheDir = join(folder, 'cache')
  const compiled = await compilePacks(attachments, { cacheDir })
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.findings))
  packs = compiled.packs
  for (const pack of packs) await load(pack)
})
afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
})

function output(pack: string, value: PolicyInput): PackOutput {
  const parsed = parseOutput(evaluate.get(pack)?.(value))
  if (parsed === null) throw new Error(`pack ${pack} answered in another shape`)
  return parsed
}

/** Both packs and the real merge. */
function decide(value: PolicyInput): Merged {
  const answers = packs.map((attachment) => ({ attachment, result: { ok: output(attachment.pack, value) } }))
  return merge(answers, value)
}

type Resource = PolicyInput['resource']

function thing(type: Resource['type'], owner: string | null, tenant: string | null = 'default'): Resource {
  return { type, id: 'some_id', properties: { owner, tenant, labels: {} } }
}

function request(roles: readonly string[], name: string, resource: Resource): PolicyInput {
  return input({
    phase: 'request',
    caller: { ...caller, roles },
    task: null,
    plan: null,
    action: { name, arguments: {} },
    resource,
  })
}

const alice = caller.subject.id
const none: Resource = { type: 'none', id: '', properties: { owner: null, tenant: null, labels: {} } }

describe('the default packs', () => {
  test('pass their own tests, check without a finding and are formatted', async () => {
    const { findings, tests } = await testPacks(attachments, { cacheDir })
    expect(findings).toEqual([])
    expect(tests.length).toBeGreaterThan(30)
    expect(tests.filter(({ outcome }) => outcome !== 'pass')).toEqual([])
    expect(await checkPacks(attachments, { cacheDir })).toEqual([])
    const names = [
      'org/access.rego',
      'org/execution.rego',
      'org/input.rego',
      'org/org_test.rego',
      'starter/request.rego',
      'starter/execution.rego',
      'starter/starter_test.rego',
    ]
    const files = names.map((name) => ({ path: name, text: readFileSync(join(root, 'policies', name), 'utf8') }))
    const formatted = await formatFiles(files, { cacheDir })
    expect(formatted.ok && formatted.files.filter(({ changed }) => changed)).toEqual([])
  })

  test('list each rule with its place, title, code and remedy', () => {
    expect(packs.map(({ pack, rules }) => [pack, Object.keys(rules)])).toEqual([
      ['org', ['ORG-001', 'ORG-002', 'ORG-003', 'ORG-010', 'ORG-020', 'ORG-021', 'ORG-022', 'ORG-004']],
      [
        'starter',
        [
          'STA-020',
          'STA-021',
          'STA-022',
          'STA-030',
          'STA-040',
          'STA-001',
          'STA-002',
          'STA-003',
          'STA-004',
          'STA-005',
          'STA-006',
          'STA-007',
          'STA-008',
        ],
      ],
    ])
    expect(packs[0]?.rules['ORG-001']?.at).toBe('org/access.rego:11')
  })

  test('answer a complete input of each phase in the shape the host takes, as OPA itself does', async () => {
    const values = [
      request(['developer'], 'get_status', thing('execution', alice)),
      input(),
      input({
        resource: {
          type: 'target',
          id: 'p',
          properties: { owner: null, tenant: 'default', labels: { env: 'production' } },
        },
      }),
    ]
    for (const value of values) for (const { pack } of packs) output(pack, value)
    const { explained } = await explainPack(org, values[2] ?? input(), { cacheDir })
    expect(parseOutput(explained?.result)).toEqual(output('org', values[2] ?? input()))
    expect(explained?.failed.some(({ file, line }) => file.endsWith('execution.rego') && line > 0)).toBe(true)
  })
})

describe('who may do what', () => {
  const effect = (roles: readonly string[], name: string, resource: Resource): string =>
    decide(request(roles, name, resource)).effect

  test('nobody without a role gets anything', () => {
    for (const name of ['initialize', 'tools/list', 'list_targets', 'submit_task', 'get_status']) {
      expect(effect([], name, none)).toBe('deny')
    }
  })

  test('a developer submits, runs and reads what is their own', () => {
    expect(effect(['developer'], 'submit_task', thing('target', null))).toBe('allow')
    expect(effect(['developer'], 'start_execution', thing('task', alice))).toBe('allow')
    expect(effect(['developer'], 'get_result', thing('execution', alice))).toBe('allow')
    expect(effect(['auditor'], 'submit_task', thing('target', null))).toBe('deny')
  })

  test('[G-own-work] work of another, of another tenant and unknown work are refused with the same words', () => {
    for (const type of ['task', 'execution', 'approval', 'artifact', 'receipt'] as const) {
      for (const name of ['get_status', 'get_result', 'resources/read', 'cancel_execution', 'upload_artifact']) {
        const answers = [
          thing(type, 'mallory'),
          thing(type, null),
          thing(type, null, null),
          thing(type, alice, 'other'),
        ].map((resource) => decide(request(['developer'], name, resource)))
        for (const answer of answers) {
          expect(answer.effect).toBe('deny')
          expect(answer.sentences).toEqual(answers[0]?.sentences)
          expect(answer.sentences[0]?.code).toBe('not_found')
        }
      }
    }
  })

  test('auditors and operators read the tenant and change nothing, approvers answer approvals', () => {
    expect(effect(['auditor'], 'resources/read', thing('receipt', 'bob'))).toBe('allow')
    expect(effect(['operator'], 'get_result', thing('execution', 'bob'))).toBe('allow')
    expect(effect(['operator'], 'cancel_execution', thing('execution', 'bob'))).toBe('deny')
    expect(effect(['approver'], 'respond_to_approval', thing('approval', 'bob'))).toBe('allow')
    expect(effect(['approver'], 'get_result', thing('execution', 'bob'))).toBe('deny')
    expect(effect(['developer'], 'respond_to_approval', thing('approval', alice))).toBe('deny')
  })
})

describe('what may run', () => {
  const at = (env: string): Resource => ({
    type: 'target',
    id: 'vault',
    properties: { owner: null, tenant: 'default', labels: { env } },
  })

  test('staging runs at once and is leased what its plan names', () => {
    const decided = decide(input({ resource: at('staging') }))
    expect([decided.effect, decided.credentials]).toEqual(['allow', ['vault-token']])
  })

  test('[G-four-eyes] production waits for another person with a key or a passkey', () => {
    const decided = decide(input({ resource: at('production') }))
    expect(decided.effect).toBe('pending')
    expect(decided.requirement).toMatchObject({
      stages: [{ id: 'approver', roles: ['approver'], min: 1 }],
      exclude: ['agent', 'subject'],
    })
    expect([...(decided.requirement?.evidence ?? [])].sort()).toEqual(['key', 'passkey'])
    // Both packs ask, and a caller reads it once.
    expect(decided.findings.filter(({ kind }) => kind === 'require_approval')).toHaveLength(2)
    expect(decided.sentences).toMatchObject([
      { code: 'approval_required', message: 'Production waits for an approver.' },
    ])
  })

  test('code of callers runs neither with open egress nor beside a secret nor unisolated', () => {
    const base = input({ resource: at('staging') })
    const { plan } = base.context
    if (plan === null) throw new Error('the input has a plan')
    const variants: readonly [Partial<typeof plan>, string][] = [
      [{ egress: 'open' }, 'open_egress'],
      [{ credentials: [{ name: 'vault-token', lane: 'exposed', exposure: 'none' }] }, 'secret_exposed'],
      [{ credentials: [{ name: 'vault-token', lane: 'placeholder', exposure: 'workload' }] }, 'secret_exposed'],
      [{ isolation: 'host' }, 'isolation_too_weak'],
    ]
    for (const [change, code] of variants) {
      const decided = decide({ ...base, context: { ...base.context, plan: { ...plan, ...change } } })
      expect(decided.effect).toBe('deny')
      expect(decided.findings.map((finding) => finding.code)).toContain(code)
    }
    const unisolated = decide({ ...base, context: { ...base.context, plan: { ...plan, isolation: 'host' } } })
    expect(unisolated.sentences).toEqual([
      {
        code: 'isolation_too_weak',
        message: 'Every run is isolated at least as a process.',
        remedy: 'Choose a target from list_targets whose runs are isolated.',
      },
    ])
  })

  test('a run calls services of its plan with credentials of its plan only', () => {
    const call = (service: string, credential: string | null): string => {
      const particulars = { service, host: 'h', port: 443, method: 'GET', path: '/', size: 0, credential }
      return decide(input({ phase: 'egress', resource: { ...none, type: 'service', id: service }, call: particulars }))
        .effect
    }
    expect(call('vault', 'vault-token')).toBe('allow')
    expect(call('vault', null)).toBe('allow')
    expect(call('vault', 'another')).toBe('deny')
    expect(call('elsewhere', null)).toBe('deny')
  })
})

describe('the generated module', () => {
  test('gives every set, normalised, keeps elements that differ in their rule only, and asks the host for nothing', async () => {
    const path = join(folder, 'whole')
    await mkdir(path)
    const rule = (set: string, id: string, rest: string): string =>
      `# METADATA\n# title: ${id}\n# custom: {id: ${id}, remedy: Ask}\n${set} contains {"rule": rego.metadata.rule()${rest}} if input.phase == "execution"\n`
    const text = [
      'package writ.pack.whole\n',
      rule('deny', 'D1', ''),
      rule('deny', 'D2', ''),
      rule('limit', 'L1', ', "wall_s": 5'),
      rule('credential', 'C1', ', "name": "x"'),
      rule('sandbox', 'S1', ', "egress": "closed"'),
      rule('obligation', 'O1', ', "type": "notify"'),
      rule(
        'warn',
        'W1',
        `, "message": $"{regex.match("a+", "aa")} {glob.match("*", [], "x")} {net.cidr_contains("10.0.0.0/8", "10.1.1.1")} {input.resource.properties.labels.gone}"`,
      ),
    ].join('\n')
    await writeFile(join(path, 'whole.rego'), text)
    const compiled = await compilePacks([{ pack: 'whole', layer: 'team', kind: 'grant', path }], { cacheDir })
    if (!compiled.ok || compiled.packs[0] === undefined) throw new Error(JSON.stringify(compiled))
    await load(compiled.packs[0])
    const named = (id: string, code: string): object => ({ id, title: id, code, remedy: 'Ask' })
    expect(Object.keys(evaluate.get('whole')?.(input()) ?? {}).sort()).toEqual([...setNames].sort())
    expect(evaluate.get('whole')?.(input())).toEqual({
      grant: [],
      deny: [
        { rule: named('D2', 'denied'), message: null },
        { rule: named('D1', 'denied'), message: null },
      ],
      require_approval: [],
      limit: [{ rule: named('L1', 'limited'), wall_s: 5 }],
      credential: [{ rule: named('C1', 'credential'), name: 'x', lane: null, exposure: null }],
      sandbox: [{ rule: named('S1', 'sandbox'), isolation: null, egress: 'closed' }],
      obligation: [{ rule: named('O1', 'obligation'), type: 'notify', properties: {} }],
      warn: [{ rule: named('W1', 'warning'), message: 'true true true <undefined>' }],
    })
  })
})

describe('the schemas', () => {
  const validators = new Map(
    phases.map((phase) => {
      const schema = JSON.parse(readFileSync(join(root, 'policies', 'schema', `${phase}.json`), 'utf8')) as object
      return [phase, new Ajv({ allowUnionTypes: true }).compile(schema)]
    }),
  )
  const complete: Readonly<Record<Phase, PolicyInput>> = {
    request: request(['developer'], 'ping', none),
    execution: input(),
    approval: input({
      phase: 'approval',
      resource: thing('approval', alice),
      verdict: {
        approval_id: 'apr_aaaaaaaaaa',
        stage: 'owner',
        verdict: 'approve',
        evidence: 'key',
        requirement: 'sha256:0',
      },
    }),
    egress: input({
      phase: 'egress',
      resource: { ...none, type: 'service', id: 'vault' },
      call: { service: 'vault', host: 'h', port: 443, method: 'GET', path: '/', size: 0, credential: null },
    }),
  }

  test('take the complete input of their phase, as the host builds it, and of no other', () => {
    for (const schema of phases) {
      for (const phase of phases) expect(validators.get(schema)?.(complete[phase])).toBe(schema === phase)
    }
  })

  test('refuse a field too many and a field too few, at any depth', () => {
    for (const phase of phases) {
      const validate = validators.get(phase)
      const visit = (node: unknown, whole: unknown): void => {
        if (typeof node !== 'object' || node === null || Array.isArray(node)) return
        const open = node as Record<string, unknown>
        for (const [key, value] of Object.entries(open)) {
          if (['arguments', 'labels', 'inputs', 'image'].includes(key)) continue
          delete open[key]
          expect(validate?.(whole), `${phase} without ${key}`).toBe(false)
          open[key] = value
          visit(value, whole)
        }
        open['surplus'] = null
        expect(validate?.(whole), `${phase} with a surplus field`).toBe(false)
        delete open['surplus']
      }
      const copy = structuredClone(complete[phase])
      visit(copy, copy)
      expect(validate?.(copy)).toBe(true)
    }
  })
})

describe('the committed tools', () => {
  const file = join(root, 'native', 'rego-tools', 'rego-tools.wasm')
  const wasm = brotliDecompressSync(readFileSync(`${file}.br`))

  test('are the ones whose digest is listed', () => {
    expect(createHash('sha256').update(wasm).digest('hex')).toBe(readFileSync(`${file}.sha256`, 'utf8').trim())
  })

  test('know each built-in of the allow-list as it stands there, and no other that modules have of their own', async () => {
    const stdin = Buffer.from('{"verb":"capabilities"}')
    const run = await runWasi(await WebAssembly.compile(wasm), { args: ['t'], env: [], stdin, maxStdout: 1e6 })
    const { capabilities } = JSON.parse(Buffer.from(run.stdout).toString('utf8')) as { capabilities: Capabilities }
    const listed = JSON.parse(readFileSync(join(root, 'policies', 'capabilities.json'), 'utf8')) as Capabilities
    expect(listed.features).toEqual(capabilities.features)
    expect(listed.builtins).toEqual(capabilities.builtins.map(bare))
  })
})

interface Capabilities {
  readonly builtins: readonly { readonly name: string; readonly decl: unknown }[]
  readonly features: readonly string[]
}

/** Without what is only for reading: a dropped `relation` once made `walk` find nothing, in silence. */
function bare({ name, decl, ...rest }: Capabilities['builtins'][number]): unknown {
  const reading = new Set(['description', 'categories'])
  const marks = Object.fromEntries(Object.entries(rest).filter(([key]) => !reading.has(key)))
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip)
    if (typeof value !== 'object' || value === null) return value
    const kept = Object.entries(value).filter(([key]) => !reading.has(key) && key !== 'name')
    return Object.fromEntries(kept.map(([key, member]) => [key, strip(member)]))
  }
  return { name, decl: strip(decl), ...marks }
}

test('[G-policy-pure] the allow-list has no clock, network, randomness, token or host function', async () => {
  const { builtins } = JSON.parse(await readFile(join(root, 'policies', 'capabilities.json'), 'utf8')) as {
    builtins: { name: string }[]
  }
  const names = builtins.map(({ name }) => name)
  expect(names.length).toBeGreaterThan(80)
  const forbidden =
    /^(sprintf|print|trace|time\.|http\.|io\.|rand\.|uuid\.|opa\.|yaml\.|crypto\.|net\.lookup|regex\.split|providers|graphql|json\.(patch|match_schema|verify_schema)|rego\.parse)/
  expect(names.filter((name) => forbidden.test(name))).toEqual([])
})

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { canonical } from '../src/digest.ts'
import { generationDigest, openEngine } from '../src/policy/engine.ts'
import type { Engine } from '../src/policy/engine.ts'
import type { Attachment, PolicyInput } from '../src/policy/policy.ts'
import { compilePacks } from '../src/policy/tools.ts'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'

const rulesPerPack = 50
const inputBytes = 8 * 1024
const rounds = 3000
/** Decisions of one, then of the other. */
const block = 50
const noServer =
  'no OPA server to compare with: CGO_ENABLED=0 GOBIN=$HOME/.cache/writ/opa-v1.22.2 go install github.com/open-policy-agent/opa@v1.22.2'
const opa = join(homedir(), '.cache', 'writ', 'opa-v1.22.2', 'opa')

const packs = [
  { pack: 'org', layer: 'org', kind: 'guard' },
  { pack: 'platform', layer: 'team', kind: 'guard' },
  { pack: 'starter', layer: 'team', kind: 'grant' },
] as const

/** The kinds of condition that packs are made of: a word, a label, a role, a path of a file, a number, a set. */
function condition(at: number): string {
  const kinds = [
    `input.action.name == "tool_${at}"`,
    `input.resource.properties.labels.env == "zone-${at}"`,
    `"role-${at}" in input.subject.properties.roles`,
    `some file in input.context.task.files\n  endswith(file.path, ".secret${at}")`,
    `input.context.plan.limits.memory_mb > ${4096 + at}`,
    `input.context.plan.executor in {"ssh-${at}", "http-${at}"}`,
    `startswith(input.context.task.goal, "drop ${at}")`,
    `input.context.time.minute_of_day < 0\n  input.context.counters.running > ${at}`,
  ]
  return kinds[at % kinds.length] ?? ''
}

function source(pack: string, grants: boolean): string {
  const rule = (id: number, head: string, body: string): string =>
    `# METADATA\n# title: Rule ${id} of ${pack}\n# custom: { id: R-${id}, remedy: "Do otherwise." }\n${head} if {\n  input.phase == "execution"\n  ${body}\n}\n`
  const rules = Array.from({ length: rulesPerPack }, (_, at) => {
    if (at === 0 && grants)
      return rule(at, 'grant contains {"rule": rego.metadata.rule()}', 'input.action.name == "start_execution"')
    if (at === 1) {
      const head = 'sandbox contains {"rule": rego.metadata.rule(), "isolation": "process"}'
      return rule(at, head, 'input.context.plan.code_origin == "caller"')
    }
    return rule(at, 'deny contains {"rule": rego.metadata.rule()}', condition(at))
  })
  return `package writ.pack.${pack}\n\n${rules.join('\n')}`
}

/** An input of phase `execution` with as many files as make it 8 KiB. */
function sample(): PolicyInput {
  const build = (files: number): PolicyInput => ({
    schema: 'writ.input/v1',
    phase: 'execution',
    subject: {
      type: 'user',
      id: 'alice@acme.example',
      properties: {
        tenant: 'default',
        roles: ['developer', 'operator'],
        auth: { method: 'socket', age_s: 12 },
        agent: { id: 'ci-agent', asserted: { client: 'claude-code', version: '2.4' } },
      },
    },
    action: { name: 'start_execution', properties: { arguments: { task_id: 'task_aaaaaaaaaa' } } },
    resource: {
      type: 'target',
      id: 'sandbox',
      properties: { owner: null, tenant: 'default', labels: { env: 'dev' } },
    },
    context: {
      time: { rfc3339: '2026-11-23T19:30:00Z', unix_s: 1795462200, weekday: 'mon', minute_of_day: 1170 },
      counters: { executions_60m: 3, denied_10m: 0, running: 1 },
      task: {
        project_name: 'report',
        intent: 'run_script',
        goal: 'Make the weekly report',
        context: '',
        inputs: { script: 'main.js' },
        files: Array.from({ length: files }, (_, at) => ({
          path: `src/part-${at}/module.js`,
          sha256: `sha256:${at.toString(16).padStart(64, '0')}`,
          size: 1000 + at,
        })),
      },
      plan: {
        digest: `sha256:${'a'.repeat(64)}`,
        executor: 'isolate',
        isolation: 'process',
        egress: 'closed',
        delivery: ['memory'],
        kill: 'confirmed',
        image: null,
        runtime: 'javascript',
        code_origin: 'caller',
        steps: [{ title: 'run main.js', argv: ['main.js'] }],
        services: [],
        hosts: [],
        credentials: [],
        limits: { wall_s: 300, cpu_s: 60, memory_mb: 512, output_kb: 1024, artifact_kb: 4096, egress_requests: 100 },
      },
      approvals: [],
      verdict: null,
      call: null,
      supported_obligations: [],
      truncated: [],
    },
  })
  let files = 1
  while (canonical(build(files)).length < inputBytes) files++
  return build(files)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

interface Server {
  /** What a program has to do that asks one: write the input, read the answer. */
  ask(input: PolicyInput): Promise<unknown>
  close(): void
}

/** The same packs behind a real OPA server, asked over one kept-alive connection. */
async function serve(folder: string): Promise<Server> {
  const main = packs.map(({ pack }) => `  "${pack}": data.writ.pack.${pack},`).join('\n')
  await writeFile(join(folder, 'main.rego'), `package writ\n\nmain := {\n${main}\n}\n`)
  const port = await freePort()
  const child: ChildProcess = spawn(
    opa,
    ['run', '--server', '--disable-telemetry', '--log-level', 'error', '--addr', `127.0.0.1:${port}`, folder],
    { stdio: 'ignore', env: {} },
  )
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ask = async (input: unknown): Promise<unknown> => {
    const body = JSON.stringify({ input })
    return await new Promise((resolve, reject) => {
      const call = request(
        {
          host: '127.0.0.1',
          port,
          path: '/v1/data/writ/main',
          method: 'POST',
          agent,
          headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        },
        (response) => {
          let text = ''
          response.setEncoding('utf8')
          response.on('data', (part: string) => {
            text += part
          })
          response.on('end', () => {
            resolve(JSON.parse(text))
          })
        },
      )
      call.on('error', reject)
      call.end(body)
    })
  }
  for (let tries = 0; ; tries++) {
    try {
      await ask({})
      break
    } catch (error) {
      if (tries > 100 || child.exitCode !== null) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  return {
    ask,
    close: () => {
      agent.destroy()
      child.kill()
    },
  }
}

/** Policy decision, whole path from input to decision document; beside it an OPA server, where there is one. */
export async function run(): Promise<readonly Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'writ-bench-policy-'))
  let engine: Engine | null = null
  let server: Server | null = null
  try {
    const attachments: Attachment[] = []
    for (const kind of packs) {
      const path = join(folder, 'packs', kind.pack)
      await mkdir(path, { recursive: true })
      await writeFile(join(path, 'rules.rego'), source(kind.pack, kind.kind === 'grant'))
      attachments.push({ ...kind, path })
    }
    const compiled = await compilePacks(attachments, { cacheDir: join(folder, 'cache') })
    if (!compiled.ok) throw new Error(JSON.stringify(compiled.findings[0]))
    engine = openEngine({ threads: 1, deadlineMs: 1000 })
    await engine.load({ number: 1, digest: generationDigest(compiled.packs), packs: compiled.packs })
    const input = sample()
    const decision = await engine.decide(input)
    if (decision.effect !== 'allow' || decision.findings.length !== 4) throw new Error(JSON.stringify(decision))

    if (existsSync(opa)) {
      server = await serve(join(folder, 'packs'))
      if (!JSON.stringify(await server.ask(input)).includes('R-0')) throw new Error('the OPA server answers otherwise')
    }
    for (let at = 0; at < 500; at++) {
      await engine.decide(input)
      await server?.ask(input)
    }
    const own: number[] = []
    const others: number[] = []
    // In turns, so that whatever else the machine does falls on both; some at a time, as each has its own caches to fill.
    for (let at = 0; at < rounds; at += block) {
      for (let turn = 0; turn < block; turn++) own.push(await timed(async () => await engine?.decide(input)))
      if (server === null) continue
      for (let turn = 0; turn < block; turn++) others.push(await timed(async () => await server?.ask(input)))
    }
    const p99 = quantile(own, 0.99)
    const size = Buffer.byteLength(canonical(input))
    const figures: Figure[] = [
      {
        name: 'policy decision p99',
        figure: `${p99.toFixed(2)} ms`,
        goal: '2 ms',
        reached: p99 <= 2,
        detail: `${server === null ? `${noServer}; ` : ''}3 packs of ${rulesPerPack} rules, input of ${size} bytes, ${rounds} decisions: p50 ${quantile(own, 0.5).toFixed(2)} ms, p95 ${quantile(own, 0.95).toFixed(2)} ms`,
      },
    ]
    // Without a server there is nothing to compare with, which the detail of the first figure says.
    if (server === null) return figures
    const ratio = quantile(others, 0.5) / quantile(own, 0.5)
    return [
      ...figures,
      {
        name: 'policy against an OPA server',
        figure: `${ratio.toFixed(1)}x`,
        goal: '5x',
        reached: ratio >= 5,
        detail: `OPA server on loopback, the same packs and input in turns: p50 ${quantile(others, 0.5).toFixed(2)} ms, p99 ${quantile(others, 0.99).toFixed(2)} ms`,
      },
    ]
  } finally {
    server?.close()
    await engine?.close()
    await rm(folder, { recursive: true, force: true })
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

import { execFile } from 'node:child_process'
import { appendFileSync, copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { startVaultStaging } from '../../examples/vault-staging.ts'
import type { JsonObject } from '../../src/digest.ts'
import { engine } from '../servers/engine.ts'
import type { CallOutcome, Driver } from './clients/driver.ts'
import { useWorld, writBin } from './world.ts'

/** The example project on its way through Writ: a real client, broker and engine, under runc and under gVisor. */

const token = `hvs.${crypto.randomUUID()}`
const staging = await startVaultStaging(token)
afterAll(async () => await staging.close())

const image = 'writ/python'
const kernels = [
  { name: 'runc', target: 'vault-staging', env: 'staging', runtime: null, isolation: 'container' },
  { name: 'runsc', target: 'vault-production', env: 'production', runtime: 'runsc', isolation: 'user-kernel' },
] as const
type Kernel = (typeof kernels)[number]

const found = await engine({ images: [`${image}:latest`] })
const world = useWorld()
if (!('lacking' in found)) {
  appendFileSync(join(world.folder, 'writ.yaml'), `\ndocker: { host: "${found.host}" }\n`)
  world.addTarget(
    kernels
      .map(
        ({ target, env, runtime }) => `  ${target}:
    about: Test bench of the Vault staging cluster
    labels: { env: ${env}, system: vault }
    executor: docker
    image: ${image}
${runtime === null ? '' : `    container: { oci_runtime: ${runtime} }\n`}    intents: [run_script, install_and_test]
    services:
      vault: { url: "${staging.url}", about: Vault's HTTP API, credential: vault-token, addresses: ["127.0.0.1/32"] }
    environment:
      VAULT_ADDR: { service: vault }
      VAULT_TOKEN: { placeholder: vault-token }
    limits: { wall_s: 120, cpu_s: 120, memory_mb: 512 }
`,
      )
      .join('') +
      ['node', 'go']
        .map(
          (name) => `  closed-${name}:
    about: A closed container
    labels: { env: sandbox }
    executor: docker
    image: writ/${name}
    intents: [install_and_test]
    limits: { wall_s: 200, cpu_s: 200, memory_mb: 1024 }
`,
        )
        .join(''),
    '  vault-token:\n    source: { file: vault-token }\n    inject: { header: X-Vault-Token }\n',
  )
  world.writ(['credentials', 'set', 'vault-token'], { input: token })
  world.enrol()
}

const project = join(import.meta.dirname, '..', '..', 'examples', 'vault-cert-client')
const files = readdirSync(project, { recursive: true, encoding: 'utf8' })
  .filter((path) => /(?:\.py|^requirements\.txt)$/.test(path))
  .map((path) => ({ path, content: readFileSync(join(project, path), 'utf8') }))

/** What the workload can see of itself and of its credential, put where it would get out. */
const looking = `import os, pathlib, requests

def test_look_around():
    out = pathlib.Path(os.environ["WRIT_OUT"])
    seen = [f"{name}={value}" for name, value in os.environ.items()]
    for path in ("/proc/self/environ", "/proc/1/environ", "/proc/self/cmdline", "/proc/self/mountinfo"):
        try:
            seen.append(pathlib.Path(path).read_bytes().decode("utf-8", "replace").replace("\\0", "\\n"))
        except OSError as error:
            seen.append(f"{path}: {error.strerror}")
    answer = requests.get(
        os.environ["VAULT_ADDR"] + "/v1/auth/token/lookup-self", headers={"X-Vault-Token": os.environ["VAULT_TOKEN"]}
    )
    seen.append(answer.text)
    print("\\n".join(seen))
    (out / "seen.txt").write_text("\\n".join(seen))
    assert answer.status_code == 200
    assert answer.json()["data"]["id"] == os.environ["VAULT_TOKEN"], "the answer shows the placeholder"
`

/** Every text that came to the client, for one look at the end. */
const heard: string[] = []

async function ask(client: Driver, tool: string, args: JsonObject): Promise<CallOutcome> {
  const outcome = await client.call(tool, args)
  heard.push(outcome.text, JSON.stringify(outcome.structured), JSON.stringify(outcome.meta))
  return outcome
}

/** Starts, has it approved where policy asks, and waits for the end. */
async function ended(client: Driver, kernel: Pick<Kernel, 'env'>, task: string): Promise<CallOutcome> {
  const started = await ask(client, 'start_execution', { task_id: task, wait_ms: 1000 })
  const id = String(started.structured['execution_id'])
  if (kernel.env === 'production') {
    expect(started.structured).toMatchObject({ state: 'awaiting_approval', ran: false })
    const approval = started.structured['approval'] as JsonObject
    expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
  }
  for (let tries = 0; tries < 20; tries++) {
    const { structured } = await ask(client, 'get_status', { execution_id: id, wait_ms: 10_000 })
    if (structured['final'] === true) return await ask(client, 'get_result', { execution_id: id })
  }
  throw new Error(`${id} did not end`)
}

const submission = (kernel: Kernel): JsonObject => ({
  project_name: 'vault-cert-client',
  goal: 'Test Python client against staging',
  target_ref: kernel.target,
  execution_intent: 'install_and_test',
})

describe.each(kernels)('a Python project under $name', (kernel) => {
  it('is tested, edited and tested again: one failure comes back parsed, then none; the receipt verifies offline', async (context) => {
    const there = await engine({ images: [`${image}:latest`], runsc: kernel.runtime === 'runsc' })
    if ('lacking' in there) return context.skip(there.lacking)
    const client = await world.client()
    const submitted = await ask(client, 'submit_task', {
      ...submission(kernel),
      files: [...files, { path: 'tests/test_look.py', content: looking }],
    })
    expect(submitted.structured).toMatchObject({
      state: 'ready',
      effect: kernel.env === 'production' ? 'pending' : 'allow',
    })
    const task = String(submitted.structured['task_id'])

    const first = await ended(client, kernel, task)
    expect(first.structured).toMatchObject({
      state: 'failed',
      tests: {
        source: 'junit',
        asserted: true,
        passed: 8,
        failed: 1,
        skipped: 0,
        failures: [{ name: 'tests.test_client.test_renew' }],
      },
    })
    expect(first.text).toContain('tests, as the workload reported them (junit): 8 passed, 1 failed, 9 in all')
    expect(first.text).toMatch(/\n\| tests\.test_client\.test_renew — AssertionError: 12 hours before its end/)

    const edited = await ask(client, 'upload_artifact', {
      task_id: task,
      files: [
        {
          path: 'vault_cert_client/certificate.py',
          edits: [
            {
              old: 'return at >= self.issued_at + self.lifetime',
              new: 'return at >= self.issued_at + self.lifetime * 2 / 3',
            },
          ],
        },
      ],
    })
    expect(edited.structured).toMatchObject({ state: 'ready', changed: [{ change: 'edited' }] })

    const second = await ended(client, kernel, task)
    expect(second.structured).toMatchObject({ state: 'succeeded', tests: { passed: 9, failed: 0, failures: [] } })
    expect(second.structured['execution_id']).not.toBe(first.structured['execution_id'])

    const root = world.writ(['keys', '--fingerprint']).out.trim()
    const jws = String(second.meta['writ/receipt'])
    const verified = world.writ(['verify', '-', '--root', root], { input: jws })
    expect(verified.out).toMatch(/^VALID:SIGNED/)
    expect(verified.out).toContain(`ran in     isolation ${kernel.isolation}`)
    expect(verified.out).toContain('tests, only as the workload reported them: 9 passed, 0 failed')
    expect(world.writ(['verify', '--root', root]).out).toMatch(/^VALID:LOGGED/)

    // The service was asked with the real token; the workload, its output and its files had the placeholder only.
    expect(staging.served.filter((line) => line === 'GET /v1/auth/token/lookup-self').length).toBeGreaterThan(0)
    const seen = await ask(client, 'get_result', {
      execution_id: String(second.structured['execution_id']),
      file: 'seen.txt',
      max_bytes: 65_536,
    })
    const text = String((seen.structured['file'] as JsonObject)['text'])
    expect(text).toContain('VAULT_ADDR=http://127.0.0.1:3128/vault')
    expect(text).toMatch(/^VAULT_TOKEN=\S{16,}$/m)
    expect(text).not.toContain(token)
    expect(heard.join('\n')).not.toContain(token)
    expect(world.log()).not.toContain(token)
  }, 300_000)

  it('that forges a report and exits 1 has failed, and nothing calls it a success [G-report-asserted]', async (context) => {
    const there = await engine({ images: [`${image}:latest`], runsc: kernel.runtime === 'runsc' })
    if ('lacking' in there) return context.skip(there.lacking)
    const client = await world.client()
    const forging = `import os, sys
cases = "".join(f'<testcase name="t{n}"/>' for n in range(12))
open(os.environ["WRIT_OUT"] + "/junit.xml", "w").write(f"<testsuite>{cases}</testsuite>")
print("12 passed")
sys.exit(1)
`
    const submitted = await ask(client, 'submit_task', {
      ...submission(kernel),
      execution_intent: 'run_script',
      inputs: { script: 'all.py' },
      files: [{ path: 'all.py', content: forging }],
    })
    const { structured, text } = await ended(client, kernel, String(submitted.structured['task_id']))
    expect(structured).toMatchObject({ state: 'failed', tests: { asserted: true, passed: 12, failed: 0 } })
    expect(text).toContain('12 passed, 0 failed, 12 in all; what counts is how the run ended: failed')
    expect(text).not.toContain('succeeded')
  }, 300_000)
})

const others = [
  {
    name: 'node',
    source: 'tap',
    files: [
      { path: 'package.json', content: '{"name":"sums","version":"1.0.0","type":"module"}' },
      {
        path: 'sums.test.js',
        content:
          "import assert from 'node:assert'\nimport { describe, it } from 'node:test'\ndescribe('sums', () => {\n  it('adds', () => assert.equal(1 + 1, 2))\n  it('fails', () => assert.equal(1 + 1, 3))\n  it('waits', { skip: true }, () => {})\n})\n",
      },
    ],
    failures: [{ name: 'fails', message: expect.stringMatching(/2 [!=]==? 3/) as string }],
  },
  {
    name: 'go',
    source: 'go',
    files: [
      { path: 'go.mod', content: 'module example.test/sums\n\ngo 1.19\n' },
      {
        path: 'sums_test.go',
        content:
          'package sums\n\nimport "testing"\n\nfunc TestAdds(t *testing.T) {}\n\nfunc TestFails(t *testing.T) {\n\tt.Run("two", func(t *testing.T) { t.Errorf("got %d, want %d", 2, 3) })\n}\n\nfunc TestWaits(t *testing.T) { t.Skip("not now") }\n',
      },
    ],
    failures: [{ name: 'TestFails/two', message: 'sums_test.go:8: got 2, want 3' }],
  },
] as const

for (const { name, source, files: sent, failures } of others)
  it(`reads what the tests of a ${name} project print, from a step of its own accord`, async (context) => {
    const there = await engine({ images: [`writ/${name}:latest`] })
    if ('lacking' in there) return context.skip(there.lacking)
    const client = await world.client()
    const submitted = await ask(client, 'submit_task', {
      project_name: 'sums',
      goal: 'Test the sums',
      target_ref: `closed-${name}`,
      execution_intent: 'install_and_test',
      files: [...sent],
    })
    expect(submitted.structured).toMatchObject({ state: 'ready', effect: 'allow' })
    const { structured } = await ended(client, { env: 'staging' }, String(submitted.structured['task_id']))
    expect(structured).toMatchObject({ state: 'failed', tests: { source, passed: 1, failed: 1, skipped: 1, failures } })
  }, 300_000)

it('prints the report on the command line of who ran it and of the operator', async (context) => {
  if ('lacking' in found) return context.skip(found.lacking)
  const names = files.map(({ path }) => path)
  const ran = await writ([
    'run',
    'vault-staging',
    '--intent',
    'install_and_test',
    '--project',
    'vault-cert-client',
    ...names.map((name) => copied(name)),
  ])
  expect(ran.out).toContain('  tests  7 passed, 1 failed (junit, as the workload reported them)\n')
  expect(ran.out).toContain('failed  tests.test_client.test_renew: AssertionError: 12 hours before its end')
  expect(ran.code).toBe(1)
  const id = /exec_[a-z2-7]{10}/.exec(ran.out)?.[0] ?? ''
  expect(world.writ(['executions', 'show', id]).out).toContain('tests      7 passed, 1 failed (junit')
}, 300_000)

/** Not `world.writ`, which would keep the staging service in this process from answering. */
async function writ(args: readonly string[]): Promise<{ readonly code: number; readonly out: string }> {
  return await new Promise((resolve) => {
    const options = { cwd: world.folder, env: world.env }
    const child = execFile(process.execPath, [writBin, ...args], options, (_failure, out) =>
      resolve({ code: child.exitCode ?? 128, out }),
    )
    child.stdin?.end()
  })
}

/** A file of the project in the folder the command runs in. */
function copied(name: string): string {
  const to = join(world.folder, name)
  mkdirSync(dirname(to), { recursive: true })
  copyFileSync(join(project, name), to)
  return name
}

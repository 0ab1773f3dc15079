// npm run demo: a broker in a temporary folder, a real MCP client, and the things Writ is for, one step each.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { startVaultStaging } from './vault-staging.ts'

const root = join(import.meta.dirname, '..')
const writ = join(root, 'bin', 'writ')
const folder = mkdtempSync(join(tmpdir(), 'writ-demo-'))
const colour = process.stdout.isTTY
const begun = performance.now()
/** Seconds it may take; as long as it likes, unless told. */
const within = Number(process.env['WRIT_DEMO_WITHIN_S'] ?? Number.POSITIVE_INFINITY)

const bold = (text: string): string => (colour ? `\u001b[1m${text}\u001b[0m` : text)
const dim = (text: string): string => (colour ? `\u001b[2m${text}\u001b[0m` : text)
const say = (text = ''): void => void process.stdout.write(`${text}\n`)
const step = (text: string): void => say(`\n${bold(text)}`)
const indent = (text: string): string =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')

interface Ran {
  readonly code: number
  readonly out: string
}

/** Runs the command line as a person would, and shows it. `secret` goes in over a pipe. */
function cli(
  args: readonly string[],
  options: { readonly input?: string; readonly fd3?: string; readonly quiet?: boolean } = {},
): Ran {
  if (options.quiet !== true) say(`  $ writ ${args.join(' ')}`)
  const passphrase = options.fd3 === undefined ? undefined : join(folder, '.passphrase')
  if (passphrase !== undefined) writeFileSync(passphrase, options.fd3 ?? '', { mode: 0o600 })
  const command = passphrase === undefined ? `exec "$@"` : `exec "$@" 3<'${passphrase}'`
  const done = spawnSync('/bin/sh', ['-c', command, 'sh', process.execPath, writ, ...args], {
    cwd: folder,
    input: options.input ?? '',
    encoding: 'utf8',
    maxBuffer: 16 * 1024 * 1024,
  })
  if (passphrase !== undefined) rmSync(passphrase)
  if (done.status === null) throw new Error(`writ ${args[0] ?? ''} was ended by ${done.signal ?? 'something'}`)
  return { code: done.status, out: done.stdout + done.stderr }
}

type Fields = Record<string, unknown>

async function call(client: Client, tool: string, args: Fields): Promise<Fields> {
  const result = await client.callTool({ name: tool, arguments: args }, { timeout: 60_000 })
  return (result.structuredContent ?? {}) as Fields
}

function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`the demo expected: ${what}`)
}

/** Submits, starts, waits for the end; the way every agent goes. */
async function runTask(
  client: Client,
  task: Fields,
): Promise<{ readonly started: Fields; readonly result: Fields | null }> {
  const submitted = await call(client, 'submit_task', task)
  must(typeof submitted['task_id'] === 'string', `a task id, not ${JSON.stringify(submitted)}`)
  const started = await call(client, 'start_execution', { task_id: submitted['task_id'], wait_ms: 20_000 })
  if (started['final'] !== true || started['state'] === 'denied') return { started, result: null }
  return { started, result: await call(client, 'get_result', { execution_id: started['execution_id'] }) }
}

async function ended(client: Client, execution: unknown): Promise<Fields> {
  let status: Fields = {}
  while (status['final'] !== true)
    status = await call(client, 'get_status', { execution_id: execution, wait_ms: 20_000 })
  return await call(client, 'get_result', { execution_id: execution })
}

/** Why no container can be started here, with what to do; null where one can. */
function containersMissing(): string | null {
  const { code, out } = cli(['images', 'verify', 'writ/python'], { quiet: true })
  if (code === 0) return null
  return `${out.trimEnd()}\nThis step takes a Docker Engine and the image "writ/python": install Docker, then once\n  writ init ~/writ --with docker\n  cd ~/writ\n  writ images build python\nand run the demo again. An engine elsewhere: DOCKER_HOST=unix:///PATH`
}

/** The example project as an agent sends it. */
function project(): Fields[] {
  const from = join(root, 'examples', 'vault-cert-client')
  return readdirSync(from, { recursive: true, encoding: 'utf8' })
    .filter((path) => /(?:\.py|^requirements\.txt)$/.test(path))
    .map((path) => ({ path, content: readFileSync(join(from, path), 'utf8') }))
}

function tail(result: Fields | null): string {
  return typeof result?.['tail'] === 'string' ? result['tail'] : ''
}

/** What the workload reported, as it stands in a result. */
function tests(result: Fields): string {
  const report = (result['tests'] ?? {}) as Fields
  const failures = (report['failures'] ?? []) as Fields[]
  return [
    `${String(report['passed'])} passed, ${String(report['failed'])} failed`,
    ...failures.map(({ name, message }) => `       ${String(name)}: ${String(message).split('\n')[0] ?? ''}`),
  ].join('\n')
}

async function staging(token: string): Promise<Server> {
  const server = createServer((request, response) => {
    const known = request.headers.authorization === `Bearer ${token}`
    response.writeHead(known ? 200 : 401, { 'content-type': 'application/json' })
    // An upstream that echoes what it was sent: the value is taken out again on the way back.
    response.end(
      JSON.stringify(known ? { orders: 42, you_sent: request.headers.authorization } : { error: 'token needed' }),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

function generation(): unknown {
  return ((JSON.parse(cli(['status', '--json'], { quiet: true }).out) as Fields)['policy'] as Fields)['generation']
}

/** Seconds until another generation decides than `before`; about one on an idle machine, and a busy one is waited for. */
async function inForce(before: unknown): Promise<number> {
  const written = performance.now()
  while (JSON.stringify(generation()) === JSON.stringify(before)) {
    must(performance.now() - written < 20_000, 'the edited policy to be in force')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return (performance.now() - written) / 1000
}

async function main(): Promise<void> {
  const token = `staging-token-${crypto.randomUUID()}`
  const vaultToken = `hvs.${crypto.randomUUID()}`
  const upstream = await staging(token)
  const vault = await startVaultStaging(vaultToken)
  const address = upstream.address()
  must(address !== null && typeof address === 'object', 'a port of the staging service')

  step('Set-up: a configuration, keys, an approver, a credential')
  must(cli(['init']).code === 0, 'writ init to succeed')
  must(
    cli(['approvals', 'enroll', 'ada', '--role', 'approver', '--passphrase-fd', '3'], { fd3: 'correct horse battery' })
      .code === 0,
    'an approver to be enrolled',
  )
  appendFileSync(
    join(folder, 'catalog.yaml'),
    `
  orders:
    about: The orders API of staging, read with a token that no code sees
    labels: { env: staging }
    executor: isolate
    intents: [run_script]
    services:
      orders: { url: "http://127.0.0.1:${String(address.port)}", about: Orders API, credential: orders-token, addresses: ["127.0.0.1/32"] }
    environment:
      ORDERS_URL: { service: orders }
      ORDERS_TOKEN: { placeholder: orders-token }
  vault-staging:
    about: Test bench of the Vault staging cluster
    labels: { env: staging, system: vault }
    executor: docker
    image: writ/python
    intents: [run_script, install_and_test]
    services:
      vault: { url: "${vault.url}", about: Vault's HTTP API, credential: vault-token, addresses: ["127.0.0.1/32"] }
    environment:
      VAULT_ADDR: { service: vault }
      VAULT_TOKEN: { placeholder: vault-token }
    limits: { wall_s: 120, cpu_s: 120, memory_mb: 512 }

credentials:
  orders-token:
    source: { file: orders-token }
    inject: { bearer: true }
  vault-token:
    source: { file: vault-token }
    inject: { header: X-Vault-Token }
`,
  )
  const engine = process.env['DOCKER_HOST'] ?? ''
  if (engine.startsWith('unix:///'))
    appendFileSync(join(folder, 'writ.yaml'), `\ndocker: { host: ${JSON.stringify(engine)} }\n`)
  must(cli(['credentials', 'set', 'orders-token'], { input: token }).code === 0, 'the credential to be stored')
  must(cli(['credentials', 'set', 'vault-token'], { input: vaultToken }).code === 0, 'the other one to be stored')
  say(dim('  An agent connects over MCP (stdio); the broker starts by itself.'))
  const client = new Client({ name: 'writ-demo', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  await client.connect(
    new StdioClientTransport({
      command: process.execPath,
      args: [writ, 'mcp'],
      cwd: folder,
      env: { PATH: process.env['PATH'] ?? '' },
      stderr: 'inherit',
    }),
  )
  say(
    `  connected, protocol ${client.getNegotiatedProtocolVersion() ?? '?'}; ${String((await client.listTools()).tools.length)} tools`,
  )

  step('1. JavaScript over an uploaded data file: allowed at once')
  const first = await runTask(client, {
    project_name: 'demo',
    goal: 'Sum the sales',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    inputs: { script: 'sum.js' },
    files: [
      {
        path: 'sum.js',
        content:
          "const rows = writ.readText('sales.csv').trim().split('\\n').slice(1)\nconst total = rows.reduce((sum, row) => sum + Number(row.split(',')[1]), 0)\nconsole.log(`total ${total}`)\nexport default { rows: rows.length, total }\n",
      },
      { path: 'sales.csv', content: 'region,amount\nnorth,120\nsouth,80\neast,55\n' },
    ],
  })
  must(
    first.result?.['state'] === 'succeeded' && tail(first.result).includes('total 255'),
    `success, not ${JSON.stringify(first.result ?? first.started)}`,
  )
  say(
    indent(
      `state  succeeded\noutput ${tail(first.result).trim()}\nfiles  ${JSON.stringify((first.result['files'] as Fields[]).map((file) => file['path']))}\nreceipt ${String((first.result['receipt'] as Fields)['receipt_id'])}`,
    ),
  )

  step('2. A production target: waits for a person, then runs by itself')
  const second = await runTask(client, {
    project_name: 'demo',
    goal: 'Rotate the demo counters',
    target_ref: 'production',
    execution_intent: 'run_script',
    inputs: { script: 'rotate.js' },
    files: [{ path: 'rotate.js', content: "console.log('rotated 3 counters')\n" }],
  })
  must(second.started['state'] === 'awaiting_approval', `a pending run, not ${JSON.stringify(second.started)}`)
  const approval = second.started['approval'] as Fields
  const id = String(approval['approval_id'])
  say(indent(`state  awaiting_approval\nthe agent is told: ${String((second.started['next'] as Fields)['tell_user'])}`))
  const approved = cli(['approvals', 'approve', id, '--passphrase-fd', '3', '--reason', 'reviewed in the demo'], {
    fd3: 'correct horse battery',
  })
  must(approved.code === 0, `the approval to be taken: ${approved.out}`)
  say(dim(indent(approved.out.split('\n').slice(0, 18).join('\n'))))
  say(indent('…'))
  const execution = String(second.started['execution_id'])
  const rotated = await ended(client, execution)
  must(rotated['state'] === 'succeeded', `success after approval, not ${JSON.stringify(rotated)}`)
  say(indent(`state  succeeded\noutput ${tail(rotated).trim()}`))

  step('3. A denied request: a rule of your own, live without a restart')
  const before = generation()
  writeFileSync(
    join(folder, 'policies', 'org', 'freeze.rego'),
    `package writ.pack.org

# METADATA
# title: Nothing is deleted during the freeze
# custom:
#   id: ACME-001
#   code: change_freeze
#   remedy: Wait until the freeze ends on Friday, or ask the release team.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	contains(lower(input.context.task.goal), "delete")
}
`,
  )
  say(dim(`  in force after ${(await inForce(before)).toFixed(1)} s`))
  const third = await runTask(client, {
    project_name: 'demo',
    goal: 'Delete the old counters',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    inputs: { script: 'delete.js' },
    files: [{ path: 'delete.js', content: "console.log('deleted')\n" }],
  })
  must(third.started['state'] === 'denied', `a denial by the new rule, not ${JSON.stringify(third.started)}`)
  const reason = (third.started['reasons'] as Fields[])[0] ?? {}
  say(
    indent(
      `state   denied\ncode    ${String(reason['code'])}\nwhy     ${String(reason['message'])}\nremedy  ${String(reason['remedy'])}\nref     ${String(reason['ref'])}`,
    ),
  )
  const own = await call(client, 'respond_to_approval', {
    approval_id: id,
    plan_digest: String(approval['plan_digest']),
    verdict: 'approve',
    reason: 'I approve myself',
  })
  must(own['error'] !== undefined, 'an agent that approves its own run to be refused')
  say(indent(`and an agent that approves its own run is refused: ${String((own['error'] as Fields)['message'])}`))

  step('4. A script that reads a token-protected service, and prints its whole environment')
  const fourth = await runTask(client, {
    project_name: 'demo',
    goal: 'Count the open orders',
    target_ref: 'orders',
    execution_intent: 'run_script',
    inputs: { script: 'orders.js' },
    files: [
      {
        path: 'orders.js',
        content:
          "const { env } = writ\nconst answer = await fetch(`${env.ORDERS_URL}/orders`, { headers: { authorization: `Bearer ${env.ORDERS_TOKEN}` } })\nconsole.log('answer', answer.status, await answer.text())\nfor (const [name, value] of Object.entries(env)) console.log(`${name}=${value}`)\n",
      },
    ],
  })
  must(
    fourth.result?.['state'] === 'succeeded' && tail(fourth.result).includes('answer 200'),
    `an answer of the service, not ${JSON.stringify(fourth.result ?? fourth.started)}`,
  )
  must(!JSON.stringify(fourth.result).includes(token), 'the token to be nowhere in the result')
  say(indent(tail(fourth.result)))
  say(indent('The service saw the real token; the script, its output and the agent only ever saw a placeholder.'))

  step('5. A Python project in a container: its tests fail, the agent edits, they pass')
  const missing = containersMissing()
  if (missing !== null) say(indent(missing))
  else {
    const submitted = await call(client, 'submit_task', {
      project_name: 'vault-cert-client',
      goal: 'Test Python client against staging',
      target_ref: 'vault-staging',
      execution_intent: 'install_and_test',
      files: project(),
    })
    must(submitted['state'] === 'ready', `a task that is ready, not ${JSON.stringify(submitted)}`)
    const task_id = submitted['task_id']
    const start = async (): Promise<Fields> =>
      await ended(client, (await call(client, 'start_execution', { task_id }))['execution_id'])
    const failing = await start()
    must(failing['state'] === 'failed', `a failing test, not ${JSON.stringify(failing)}`)
    say(indent(`state  failed\ntests  ${tests(failing)}`))
    const edit = {
      old: 'return at >= self.issued_at + self.lifetime',
      new: 'return at >= self.issued_at + self.lifetime * 2 / 3',
    }
    await call(client, 'upload_artifact', {
      task_id,
      files: [{ path: 'vault_cert_client/certificate.py', edits: [edit] }],
    })
    say(dim(`  the agent edits certificate.py:\n    - ${edit.old}\n    + ${edit.new}`))
    const passing = await start()
    must(passing['state'] === 'succeeded', `success after the edit, not ${JSON.stringify(passing)}`)
    must(!JSON.stringify([failing, passing]).includes(vaultToken), 'the token to be nowhere in the results')
    say(indent(`state  succeeded\ntests  ${tests(passing)}`))
    say(indent(`The staging service was asked ${String(vault.served.length)} times with the real token.`))
  }

  step('6. Anyone can check the receipts, offline')
  const fingerprint = cli(['keys', '--fingerprint'], { quiet: true }).out.trim()
  const verified = cli(['verify', '--root', fingerprint])
  must(verified.code === 0, `the log to verify: ${verified.out}`)
  say(indent(verified.out.split('\n').slice(0, 6).join('\n')))
  const jws = cli(['receipts', 'show', '--jws', String((first.result['receipt'] as Fields)['receipt_id'])], {
    quiet: true,
  }).out.trim()
  const at = jws.indexOf('.') + 40
  const flipped = jws.slice(0, at) + (jws[at] === 'A' ? 'B' : 'A') + jws.slice(at + 1)
  writeFileSync(join(folder, 'flipped.jws'), flipped)
  say('  … and one receipt with a single character changed:')
  const forged = cli(['verify', 'flipped.jws', '--root', fingerprint])
  must(forged.code === 1, 'the changed receipt to be refused')
  say(indent(forged.out.split('\n').slice(0, 3).join('\n')))

  await client.close()
  cli(['stop'], { quiet: true })
  upstream.close()
  await vault.close()
  const took = (performance.now() - begun) / 1000
  must(took <= within, `to be done in ${String(within)} s, not ${took.toFixed(1)} s`)
  say(`\n${dim(`Done in ${took.toFixed(1)} s. Nothing is left behind.`)}`)
  say(
    `What to do next, with Claude Code, Claude Desktop, VS Code or OpenClaw: ${pathToFileURL(join(root, 'README.md')).href}#first-use`,
  )
}

/** Ends the broker, which outlives its clients, and takes the folder away. */
function cleanUp(): void {
  spawnSync(process.execPath, [writ, 'stop'], { cwd: folder, stdio: 'ignore', timeout: 60_000 })
  rmSync(folder, { recursive: true, force: true })
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(signal, () => {
    cleanUp()
    process.kill(process.pid, signal)
  })

let failed = false
try {
  await main()
} catch (failure) {
  failed = true
  say(`\nThe demo did not go as it should: ${failure instanceof Error ? failure.message : String(failure)}`)
  say(indent(readLog()))
} finally {
  cleanUp()
}
// The client and the staging service may still be open; nothing more is to come of them.
if (failed) process.exit(1)

function readLog(): string {
  try {
    return readFileSync(join(folder, '.writ', 'broker.log'), 'utf8')
      .split('\n')
      .slice(-6)
      .join('\n')
  } catch {
    return ''
  }
}

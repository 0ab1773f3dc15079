import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import type { IncomingHttpHeaders } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { loadConfig } from '../../src/config.ts'
import type { JsonObject } from '../../src/digest.ts'
import type { Results } from '../../src/execution/result.ts'
import type { Arguments, ToolName } from '../../src/request/call.ts'
import type { Caller } from '../../src/request/caller.ts'
import { openLoopback } from '../../src/http/loopback.ts'
import { openTransferAnswers } from '../../src/http/transfer.ts'
import type { Parts } from '../../src/path/parts.ts'
import { openRefusals } from '../../src/path/refusals.ts'
import { openTransfers } from '../../src/path/transfer.ts'
import type { Quotas } from '../../src/path/storage.ts'
import type { TransferDesk } from '../../src/path/desk.ts'
import { serve } from '../../src/serve.ts'
import type { Served } from '../../src/serve.ts'
import { decided } from '../e2e/clients/driver.ts'

const bin = join(import.meta.dirname, '..', '..', 'bin', 'writ')

/** A real broker in this process, as `writ serve` makes one: policies, run host, ledger and listener are the real ones. */
export interface Broker {
  readonly folder: string
  readonly served: Served
  readonly log: string
  readonly caller: Caller
  call<T extends ToolName>(tool: T, args: Arguments[T]): Promise<Results[T]>
  /** A task of its own, with a script that prints the size of each file. */
  task(over?: Partial<Arguments['submit_task']>): Promise<string>
  upload(
    task: string,
    path: string,
    bytes: Uint8Array,
    over?: Partial<NonNullable<Arguments['upload_artifact']['upload']>>,
  ): Promise<string>
  files(task: string): readonly { readonly path: string; readonly size: number; readonly sha256: string }[]
  /** Names of files that are still on their way. */
  halves(): readonly string[]
  stop(): Promise<void>
}

/** A folder as `writ init` leaves it; `yaml` is added to writ.yaml. */
export function initialised(yaml = '', within = tmpdir()): string {
  const folder = mkdtempSync(join(within, 'writ-transfer-'))
  const made = spawnSync(process.execPath, [bin, 'init', folder], {
    env: { PATH: process.env['PATH'] ?? '', HOME: folder },
    encoding: 'utf8',
  })
  if (made.status !== 0) throw new Error(`writ init failed: ${made.stdout}${made.stderr}`)
  appendFileSync(join(folder, 'writ.yaml'), yaml)
  return folder
}

export async function openTestBroker(
  options: { readonly yaml?: string; readonly folder?: string } = {},
): Promise<Broker> {
  const folder = options.folder ?? initialised(options.yaml)
  const lines: string[] = []
  const config = loadConfig(join(folder, 'writ.yaml'))
  const served = await serve(config, {
    log: pino({}, { write: (line: string) => void lines.push(line) }),
    env: new Map(),
    version: '0.0.0',
    idle: false,
    httpImplied: false,
  })
  const caller: Caller = {
    tenant: 'default',
    subject: { type: 'user', id: config.local.subject },
    roles: config.local.roles,
    agent: { id: config.local.agent, asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: Date.now(), shown: null },
  }
  const broker: Broker = {
    folder,
    served,
    get log() {
      return lines.join('')
    },
    caller,
    async call(tool, args) {
      return await decided(
        async () => {
          const waiting = { signal: AbortSignal.timeout(60_000), progress: () => undefined }
          return await served.broker.call(caller, tool, args, waiting)
        },
        (answer) => answer as unknown as JsonObject,
      )
    },
    async task(over = {}) {
      const { task_id, error } = await broker.call('submit_task', {
        project_name: 'transfer',
        goal: 'Look at files',
        target_ref: 'sandbox',
        execution_intent: 'run_script',
        inputs: { script: 'main.js' },
        files: [{ path: 'main.js', content: sizes }],
        ...over,
      })
      if (task_id === undefined) throw new Error(JSON.stringify(error))
      return task_id
    },
    async upload(task, path, bytes, over = {}) {
      const answer = await broker.call('upload_artifact', {
        task_id: task,
        upload: { path, size: bytes.length, sha256: sha256(bytes), ...over },
      })
      if (answer.upload_url === undefined) throw new Error(JSON.stringify(answer.error))
      return answer.upload_url
    },
    files(task) {
      return served.parts.ledger.views.tasks('default', 1000).find((one) => one.id === task)?.files ?? []
    },
    halves: () => readdirSync(served.folder.artifacts).filter((name) => name.startsWith('.incoming-')),
    async stop() {
      await served.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  return broker
}

/** A desk of its own over the broker's real parts, with a clock the test moves and a listener of its own. */
export function openDesk(
  broker: Broker,
  options: {
    readonly paceMs?: number
    readonly bodyMs?: number
    readonly quotas?: Omit<Quotas, 'executions'>
    readonly parts?: Partial<Parts>
  } = {},
): { readonly desk: TransferDesk; readonly pass: (ms: number) => void; close(): Promise<void> } {
  let ahead = 0
  const clock = { now: () => Date.now() + ahead, monotonic: () => performance.now() + ahead }
  const quotas = { stored_mb: 10_000, tickets: 100, transfers: 8, executions: 250, ...options.quotas }
  const storage = { ...broker.served.parts.storage, quotas: () => quotas }
  const parts: Parts = { ...broker.served.parts, clock, storage, ...options.parts }
  const { paceMs = 30_000, bodyMs = 3_600_000 } = options
  const loopback = openLoopback(() => answers)
  const desk = openTransfers(parts, openRefusals(parts), {
    place: loopback,
    spared: () => false,
    paceMs,
    bodyMs,
  })
  const answers = openTransferAnswers(desk, parts)
  return {
    desk,
    pass: (ms) => (ahead += ms),
    async close() {
      await desk.close()
      await loopback.close()
    },
  }
}

const sizes = `import { files, readBytes } from 'writ'
for (const path of files()) console.log(path, readBytes(path).length)
`

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly bytes: Buffer
  readonly json: JsonObject
  readonly code: string
}

/** One request by `node:http`, with exactly these headers. */
export async function send(
  url: string,
  method: string,
  headers: Readonly<Record<string, string | number>> = {},
  body: Uint8Array | null = null,
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const sending = request(url, { method, headers, agent: false }, (response) => {
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () => resolve(answered(response.statusCode ?? 0, response.headers, Buffer.concat(pieces))))
    })
    sending.on('error', reject)
    sending.end(body ?? undefined)
  })
}

export async function put(
  url: string,
  bytes: Uint8Array,
  headers: Readonly<Record<string, string | number>> = {},
): Promise<Answer> {
  return await send(url, 'PUT', { 'content-length': bytes.length, ...headers }, bytes)
}

function answered(status: number, headers: IncomingHttpHeaders, bytes: Buffer): Answer {
  const isJson = bytes.length > 0 && headers['content-type'] === 'application/json'
  const json = (isJson ? JSON.parse(bytes.toString()) : {}) as JsonObject
  const error = json['error'] as JsonObject | undefined
  return { status, headers, bytes, json, code: typeof error?.['code'] === 'string' ? error['code'] : '' }
}

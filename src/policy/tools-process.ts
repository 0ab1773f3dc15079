import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { WritError } from '../error.ts'
import { siblingModule } from '../module.ts'
import { factsSchema, problemSchema } from './facts.ts'
import type { Phase } from './policy.ts'
import { ToolsCache } from './tools-cache.ts'

export interface ToolsOptions {
  /**
   * Folder for the output of the tools, made if missing. The files right in it can be deleted at any time; `modules/` and
   * `generations/` below a broker's are records, without which earlier decisions cannot be made again.
   */
  readonly cacheDir: string
  readonly signal?: AbortSignal
  /** Milliseconds the tools may take for one pack; 20,000 unless given. */
  readonly deadlineMs?: number
}

const root = fileURLToPath(new URL('../../', import.meta.url))
const wasmFile = join(root, 'native', 'rego-tools', 'rego-tools.wasm.br')
const phases = ['request', 'execution', 'approval', 'egress'] as const satisfies readonly Phase[]
const defaultDeadlineMs = 20_000
/** Milliseconds the process may take to unpack and compile the module; about 300 on an idle machine. */
const startMs = 60_000
/** Pages of 64 KiB: what the tools' memory may grow to. */
const maxPages = 16_384
const maxLine = 96 * 1024 * 1024

const replySchema = z.object({
  problems: z.array(problemSchema),
  facts: factsSchema.optional(),
  module: z.string().optional(),
  formatted: z.array(z.object({ path: z.string(), text: z.string() })).optional(),
  tests: z
    .array(
      z.object({
        file: z.string(),
        row: z.number(),
        col: z.number(),
        name: z.string(),
        outcome: z.enum(['pass', 'fail', 'error', 'skip']),
        message: z.string(),
        output: z.string(),
        duration_ns: z.number(),
      }),
    )
    .optional(),
  version: z.string().optional(),
  result: z.json().optional(),
  trace: z
    .array(z.object({ file: z.string(), row: z.number(), col: z.number(), op: z.string(), text: z.string() }))
    .optional(),
})
export type Reply = z.infer<typeof replySchema>
const lineSchema = z.union([z.object({ reply: replySchema }), z.object({ failed: z.string() })])
export type Answer =
  | { readonly reply: Reply }
  | { readonly failed: string; readonly code: 'tools_failed' | 'tools_deadline' }

let fixed: {
  readonly digest: string
  readonly common: { readonly capabilities: unknown; readonly schemas: unknown }
} | null = null

/** The digest of the tools and the parts every request has: read once, without touching the module. */
export function tools(): NonNullable<typeof fixed> {
  if (fixed === null) {
    const digest = readFileSync(join(root, 'native', 'rego-tools', 'rego-tools.wasm.sha256'), 'utf8').trim()
    const json = (...path: string[]): unknown => JSON.parse(readFileSync(join(root, 'policies', ...path), 'utf8'))
    const schemas = Object.fromEntries(phases.map((phase) => [phase, json('schema', `${phase}.json`)]))
    fixed = { digest, common: { capabilities: json('capabilities.json'), schemas } }
  }
  return fixed
}

/**
 * Answers each request from the cache or by the tools, in order. Only a request the cache does not know starts a process
 * or opens the module. Rejects with the signal's reason when aborted.
 */
export async function ask(
  requests: readonly string[],
  options: ToolsOptions,
  cached: boolean,
): Promise<readonly Answer[]> {
  const cache = new ToolsCache(options.cacheDir, tools().digest)
  const answers: (Answer | undefined)[] = []
  for (const request of requests) {
    const known = cached ? replySchema.safeParse(await cache.read(request)) : null
    answers.push(known?.success === true ? { reply: known.data } : undefined)
  }
  // A child that dies answered up to the request it died of; the rest goes to the next child.
  for (let open = missing(answers); open.length > 0; open = missing(answers)) {
    const fresh = await runChild(
      open.map((index) => requests[index] ?? ''),
      options,
    )
    if (fresh.length === 0) throw new WritError('internal', 'the Rego tools answered nothing')
    for (const [nth, answer] of fresh.entries()) {
      const index = open[nth]
      if (index === undefined) continue
      answers[index] = answer
      if (cached && 'reply' in answer) await cache.write(requests[index] ?? '', answer.reply)
    }
  }
  return answers.filter((answer) => answer !== undefined)
}

function missing(answers: readonly (Answer | undefined)[]): readonly number[] {
  return answers.flatMap((answer, index) => (answer === undefined ? [index] : []))
}

/**
 * One process for several requests: no environment, no files but the module and its own code, a memory limit and a
 * deadline per answer. At least one answer comes back; where the process dies, the last one says so.
 */
async function runChild(requests: readonly string[], options: ToolsOptions): Promise<readonly Answer[]> {
  options.signal?.throwIfAborted()
  const deadlineMs = options.deadlineMs ?? defaultDeadlineMs
  const own = dirname(fileURLToPath(import.meta.url))
  const child = spawn(
    process.execPath,
    [
      '--permission',
      '--allow-worker',
      `--allow-fs-read=${own}`,
      `--allow-fs-read=${join(root, 'package.json')}`,
      `--allow-fs-read=${wasmFile}`,
      '--max-old-space-size=512',
      // One short run each: optimizing the module takes more than it gives (measured: 0.8 s against 0.35 s a pack).
      '--liftoff-only',
      `--wasm-max-mem-pages=${maxPages}`,
      siblingModule(import.meta.url, './tools-child'),
      wasmFile,
      tools().digest,
      String(startMs + requests.length * deadlineMs + startMs),
    ],
    { env: {}, cwd: own, stdio: ['pipe', 'pipe', 'pipe'] },
  )
  const answers: Answer[] = []
  let ready = false
  let late = false
  const kill = (): void => {
    child.kill('SIGKILL')
  }
  const ring = (): void => {
    late = true
    kill()
  }
  let timer = setTimeout(ring, startMs)
  options.signal?.addEventListener('abort', kill, { once: true })

  let rest = ''
  let complaint = ''
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (chunk: string) => {
    rest += chunk
    if (rest.length > maxLine) return kill()
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end)
      rest = rest.slice(end + 1)
      if (ready) answers.push(readAnswer(line))
      ready = true
      clearTimeout(timer)
      timer = setTimeout(ring, deadlineMs)
    }
  })
  child.stderr.setEncoding('utf8')
  child.stderr.on('data', (chunk: string) => {
    complaint = (complaint + chunk).slice(0, 4096)
  })
  // A child that dies early closes its end: its exit says more than the broken pipe.
  child.stdin.on('error', () => undefined)
  child.stdin.end(requests.map((request) => `${request}\n`).join(''))
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new WritError('internal', 'the Rego tools could not be started', { cause })),
      )
      child.once('close', () => resolve())
    })
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', kill)
  }
  options.signal?.throwIfAborted()
  if (!ready) throw new WritError('internal', 'the Rego tools could not be started', { cause: complaint })
  if (answers.length < requests.length) {
    answers.push(
      late
        ? { code: 'tools_deadline', failed: `it took longer than ${deadlineMs / 1000} s` }
        : { code: 'tools_failed', failed: 'it needs too much memory' },
    )
  }
  return answers.slice(0, requests.length)
}

function readAnswer(line: string): Answer {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return { code: 'tools_failed', failed: 'the answer is no JSON' }
  }
  const parsed = lineSchema.safeParse(value)
  if (!parsed.success) return { code: 'tools_failed', failed: 'the answer has another shape' }
  if ('reply' in parsed.data) return parsed.data
  return { code: 'tools_failed', failed: parsed.data.failed }
}

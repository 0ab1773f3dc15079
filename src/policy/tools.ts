import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { digestOf } from '../digest.ts'
import type { Json } from '../digest.ts'
import { WritError } from '../error.ts'
import { siblingModule } from '../module.ts'
import { factsSchema, lint, problemSchema } from './lint.ts'
import { entrypoint, readPack, realPath, setNames, wrapper } from './pack.ts'
import type { PackFile, PackSource, PolicyFinding } from './pack.ts'
import type { Attachment, CompiledPack, Phase, PolicyInput } from './policy.ts'
import { ToolsCache } from './tools-cache.ts'

export { attachFolder } from './pack.ts'
export type { PackFile, PolicyFinding } from './pack.ts'

export interface ToolsOptions {
  /** Folder for the output of the tools, made if missing; what it holds can be deleted at any time. */
  readonly cacheDir: string
  readonly signal?: AbortSignal
  /** Milliseconds the tools may take for one pack, their start included. */
  readonly deadlineMs?: number
}

export type Compiled =
  | { readonly ok: true; readonly packs: readonly CompiledPack[]; readonly warnings: readonly PolicyFinding[] }
  | { readonly ok: false; readonly findings: readonly PolicyFinding[] }

export interface PackTest {
  readonly pack: string
  readonly name: string
  readonly file: string
  readonly line: number
  /** `skip` is what OPA does with a test named `todo_test_…`. */
  readonly outcome: 'pass' | 'fail' | 'error' | 'skip'
  readonly message: string
  /** What the test printed. */
  readonly output: string
  readonly duration_ms: number
}

const root = fileURLToPath(new URL('../../', import.meta.url))
const wasmFile = join(root, 'native', 'rego-tools', 'rego-tools.wasm.br')
const phases = ['request', 'execution', 'approval', 'egress'] as const satisfies readonly Phase[]
const defaultDeadlineMs = 20_000
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
type Reply = z.infer<typeof replySchema>
const lineSchema = z.union([z.object({ reply: replySchema }), z.object({ failed: z.string() })])
type Answer = { readonly reply: Reply } | { readonly failed: string; readonly code: 'tools_failed' | 'tools_deadline' }

let fixed: {
  readonly digest: string
  readonly common: { readonly capabilities: unknown; readonly schemas: unknown }
} | null = null

/** The digest of the tools and the parts every request has: read once, without touching the module. */
function tools(): NonNullable<typeof fixed> {
  if (fixed === null) {
    const digest = readFileSync(join(root, 'native', 'rego-tools', 'rego-tools.wasm.sha256'), 'utf8').trim()
    const json = (...path: string[]): unknown => JSON.parse(readFileSync(join(root, 'policies', ...path), 'utf8'))
    const schemas = Object.fromEntries(phases.map((phase) => [phase, json('schema', `${phase}.json`)]))
    fixed = { digest, common: { capabilities: json('capabilities.json'), schemas } }
  }
  return fixed
}

type Verb = 'check' | 'build' | 'test' | 'eval'

function packRequest(
  verb: Verb,
  { attachment, files }: PackSource,
  more: { readonly input?: unknown; readonly filter?: string } = {},
): string {
  return JSON.stringify({
    verb,
    pack: attachment.pack,
    files: verb === 'check' || verb === 'test' ? files : files.filter((file) => !file.path.endsWith('_test.rego')),
    wrapper: wrapper(attachment.pack),
    entrypoint,
    sets: setNames,
    ...tools().common,
    ...more,
  })
}

/**
 * Answers each request from the cache or by the tools, in order. Only a request the cache does not know starts a process
 * or opens the module. Rejects with the signal's reason when aborted.
 */
async function ask(requests: readonly string[], options: ToolsOptions, cached: boolean): Promise<readonly Answer[]> {
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
  const own = dirname(fileURLToPath(import.meta.url))
  const child = spawn(
    process.execPath,
    [
      '--permission',
      `--allow-fs-read=${own}`,
      `--allow-fs-read=${join(root, 'package.json')}`,
      `--allow-fs-read=${wasmFile}`,
      '--max-old-space-size=512',
      `--wasm-max-mem-pages=${maxPages}`,
      siblingModule(import.meta.url, './tools-child'),
      wasmFile,
      tools().digest,
    ],
    { env: {}, cwd: own, stdio: ['pipe', 'pipe', 'pipe'] },
  )
  const answers: Answer[] = []
  const deadlineMs = options.deadlineMs ?? defaultDeadlineMs
  let late = false
  const kill = (): void => {
    child.kill('SIGKILL')
  }
  const ring = (): void => {
    late = true
    kill()
  }
  let timer = setTimeout(ring, deadlineMs)
  options.signal?.addEventListener('abort', kill, { once: true })

  let rest = ''
  let complaint = ''
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (chunk: string) => {
    rest += chunk
    if (rest.length > maxLine) return kill()
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const answer = readAnswer(rest.slice(0, end))
      rest = rest.slice(end + 1)
      answers.push(answer)
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
  if (answers.length < requests.length) {
    if (late) answers.push({ code: 'tools_deadline', failed: `it took longer than ${deadlineMs / 1000} s` })
    else if (answers.length === 0 && /Error: (the Rego tools are not|ENOENT|ERR_)/.test(complaint)) {
      throw new WritError('internal', 'the Rego tools could not be started', { cause: complaint })
    } else answers.push({ code: 'tools_failed', failed: 'it needs too much memory' })
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

interface Examined {
  readonly source: PackSource
  readonly reply: Reply | null
  readonly findings: readonly PolicyFinding[]
  readonly rules: CompiledPack['rules']
}

function examine(source: PackSource, answer: Answer): Examined {
  const { attachment } = source
  if ('failed' in answer) {
    const message = `the pack could not be compiled: ${answer.failed.slice(0, 300)}`
    const finding: PolicyFinding = {
      file: attachment.path,
      line: 0,
      column: 0,
      level: 'error',
      code: answer.code,
      message,
    }
    return { source, reply: null, findings: [finding], rules: {} }
  }
  return { source, reply: answer.reply, ...lint(attachment, answer.reply.facts ?? null, answer.reply.problems) }
}

async function examineAll(
  verb: Verb,
  attachments: readonly Attachment[],
  options: ToolsOptions,
  more: { readonly input?: unknown; readonly filter?: string } = {},
): Promise<{ readonly findings: PolicyFinding[]; readonly examined: readonly Examined[] }> {
  const findings: PolicyFinding[] = []
  const sources: PackSource[] = []
  const names = new Set<string>()
  for (const attachment of attachments) {
    const read = await readPack(attachment)
    if (names.has(attachment.pack)) {
      const message = `two packs are named "${attachment.pack}"`
      findings.push({ file: attachment.path, line: 0, column: 0, level: 'error', code: 'duplicate_pack', message })
    } else if (read.ok) sources.push(read.source)
    else findings.push(...read.findings)
    names.add(attachment.pack)
  }
  const requests = sources.map((source) => packRequest(verb, source, more))
  const answers = await ask(requests, options, verb === 'check' || verb === 'build')
  const examined = sources.flatMap((source, index) => {
    const answer = answers[index]
    return answer === undefined ? [] : [examine(source, answer)]
  })
  for (const one of examined) findings.push(...one.findings)
  return { findings, examined }
}

function hasError(findings: readonly PolicyFinding[]): boolean {
  return findings.some((finding) => finding.level === 'error')
}

/**
 * Compiles each attached pack to a module of its own with the entry point `writ/main`, in the order given. One error in
 * one pack refuses all: a generation is whole or not there. Unchanged packs come from `cacheDir` without starting a
 * process. Rejects only when aborted, or with `internal` where the package itself is damaged.
 */
export async function compilePacks(attachments: readonly Attachment[], options: ToolsOptions): Promise<Compiled> {
  const { findings, examined } = await examineAll('build', attachments, options)
  if (hasError(findings)) return { ok: false, findings }
  const packs: CompiledPack[] = []
  for (const { source, reply, rules } of examined) {
    const { pack, layer, kind, path } = source.attachment
    if (reply?.module === undefined) {
      const message = 'the compiler made no module'
      return {
        ok: false,
        findings: [{ file: path, line: 0, column: 0, level: 'error', code: 'tools_failed', message }],
      }
    }
    const module = Uint8Array.from(Buffer.from(reply.module, 'base64'))
    packs.push({ pack, layer, kind, module, digest: digestOf(module), rules })
  }
  return { ok: true, packs, warnings: findings }
}

/** The findings of `compilePacks` and those of the tests' files, without making a module. */
export async function checkPacks(
  attachments: readonly Attachment[],
  options: ToolsOptions,
): Promise<readonly PolicyFinding[]> {
  return (await examineAll('check', attachments, options)).findings
}

/** Runs the `test_…` rules of each pack with OPA's own evaluator; packs with errors are not run. `filter` is RE2. */
export async function testPacks(
  attachments: readonly Attachment[],
  options: ToolsOptions & { readonly filter?: string },
): Promise<{ readonly findings: readonly PolicyFinding[]; readonly tests: readonly PackTest[] }> {
  const { findings, examined } = await examineAll('test', attachments, options, { filter: options.filter ?? '' })
  const tests = examined.flatMap(({ source: { attachment }, reply }) =>
    (reply?.tests ?? []).map((test) => ({
      pack: attachment.pack,
      name: test.name.replace(/^data\.writ\.pack\./, ''),
      file: realPath(attachment, test.file),
      line: test.row,
      outcome: test.outcome,
      message: test.message,
      output: test.output,
      duration_ms: test.duration_ns / 1e6,
    })),
  )
  return { findings, tests }
}

export interface Explained {
  /** What `writ/main` gives on OPA's own evaluator, for comparison with the module's answer. */
  readonly result: Json | null
  /** Expressions that failed, in order of evaluation: what nearly fired and why it did not. */
  readonly failed: readonly { readonly file: string; readonly line: number; readonly text: string }[]
}

/** Evaluates one pack with a trace. The findings are errors of the pack; then there is nothing explained. */
export async function explainPack(
  attachment: Attachment,
  input: PolicyInput,
  options: ToolsOptions,
): Promise<{ readonly findings: readonly PolicyFinding[]; readonly explained: Explained | null }> {
  const { findings, examined } = await examineAll('eval', [attachment], options, { input })
  const reply = examined[0]?.reply
  if (hasError(findings) || reply?.trace === undefined) return { findings, explained: null }
  const failed = reply.trace
    .filter((line) => line.file.startsWith(`${attachment.pack}/`))
    .map((line) => ({ file: realPath(attachment, line.file), line: line.row, text: line.text }))
  return { findings, explained: { result: reply.result ?? null, failed } }
}

export type Formatted =
  | {
      readonly ok: true
      readonly files: readonly { readonly path: string; readonly formatted: string; readonly changed: boolean }[]
    }
  | { readonly ok: false; readonly findings: readonly PolicyFinding[] }

/** Formats Rego as `opa fmt` does. `path` is only a name for findings and comes back as given. Writes nothing. */
export async function formatFiles(files: readonly PackFile[], options: ToolsOptions): Promise<Formatted> {
  // Names stay here: the tools see numbers, so that a path can mean nothing to them.
  const numbered = files.map(({ text }, index) => ({ path: `${index}.rego`, text }))
  const [answer] = await ask([JSON.stringify({ verb: 'fmt', files: numbered })], options, false)
  const original = (path: string): PackFile | undefined => files[Number.parseInt(path, 10)]
  if (answer === undefined || 'failed' in answer) {
    const message = `the files could not be formatted: ${answer?.failed ?? ''}`
    const finding: PolicyFinding = {
      file: files[0]?.path ?? '',
      line: 0,
      column: 0,
      level: 'error',
      code: 'tools_failed',
      message,
    }
    return { ok: false, findings: [finding] }
  }
  if (answer.reply.problems.length > 0) {
    const findings = answer.reply.problems.map((problem): PolicyFinding => {
      const { code, message, row: line, col: column, file } = problem
      return { file: original(file)?.path ?? '', line, column, level: 'error', code, message }
    })
    return { ok: false, findings }
  }
  const formatted = (answer.reply.formatted ?? []).flatMap(({ path, text }) => {
    const file = original(path)
    return file === undefined ? [] : [{ path: file.path, formatted: text, changed: text !== file.text }]
  })
  return { ok: true, files: formatted }
}

/** Which compiler is inside: for `writ doctor` and for the record of a generation. */
export function toolsDigest(): string {
  return `sha256:${tools().digest}`
}

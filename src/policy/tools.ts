import { digestOf } from '../digest.ts'
import type { Json } from '../digest.ts'
import { clean, lint } from './lint.ts'
import { entrypoint, isTestFile, readPack, realPath, setNames } from './pack.ts'
import type { PackFile, PackSource, PolicyFinding } from './pack.ts'
import type { Attachment, CompiledPack, PolicyInput } from './policy.ts'
import { ask, tools } from './tools-process.ts'
import type { Answer, Reply, ToolsOptions } from './tools-process.ts'
import { wrapper } from './wrapper.ts'

export { attachFolder, notText, textOf } from './pack.ts'
export type { PackFile, PolicyFinding } from './pack.ts'
export type { ToolsOptions } from './tools-process.ts'

export type Compiled =
  | { readonly ok: true; readonly packs: readonly CompiledPack[]; readonly warnings: readonly PolicyFinding[] }
  /** `good` are the packs that compiled all the same, `broken` the attachments that did not. */
  | {
      readonly ok: false
      readonly findings: readonly PolicyFinding[]
      readonly good: readonly CompiledPack[]
      readonly broken: readonly Attachment[]
    }

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

type Verb = 'check' | 'build' | 'test' | 'eval'

function packRequest(
  verb: Verb,
  { attachment, files }: PackSource,
  more: { readonly input?: unknown; readonly filter?: string } = {},
): string {
  return JSON.stringify({
    verb,
    pack: attachment.pack,
    files: verb === 'check' || verb === 'test' ? files : files.filter((file) => !isTestFile(file.path)),
    wrapper: wrapper(attachment.pack),
    entrypoint,
    sets: setNames,
    ...tools().common,
    ...more,
  })
}

interface Examined {
  readonly attachment: Attachment
  readonly reply: Reply | null
  readonly findings: readonly PolicyFinding[]
  readonly rules: CompiledPack['rules']
}

function examine(source: PackSource, answer: Answer): Examined {
  const { attachment } = source
  if ('failed' in answer) {
    const message = `the pack could not be compiled: ${clean(answer.failed.slice(0, 300))}`
    const finding: PolicyFinding = {
      file: attachment.path,
      line: 0,
      column: 0,
      level: 'error',
      code: answer.code,
      message,
    }
    return { attachment, reply: null, findings: [finding], rules: {} }
  }
  return { attachment, reply: answer.reply, ...lint(attachment, answer.reply.facts ?? null, answer.reply.problems) }
}

async function examineAll(
  verb: Verb,
  attachments: readonly Attachment[],
  options: ToolsOptions,
  more: { readonly input?: unknown; readonly filter?: string } = {},
): Promise<{ readonly findings: readonly PolicyFinding[]; readonly examined: readonly Examined[] }> {
  const unread: Examined[] = []
  const sources: PackSource[] = []
  const names = new Set<string>()
  for (const attachment of attachments) {
    const read = await readPack(attachment)
    if (names.has(attachment.pack)) {
      const message = `two packs are named "${attachment.pack}"`
      const finding = {
        file: attachment.path,
        line: 0,
        column: 0,
        level: 'error',
        code: 'duplicate_pack',
        message,
      } as const
      unread.push({ attachment, reply: null, findings: [finding], rules: {} })
    } else if (read.ok) sources.push(read.source)
    else unread.push({ attachment, reply: null, findings: read.findings, rules: {} })
    names.add(attachment.pack)
  }
  const requests = sources.map((source) => packRequest(verb, source, more))
  const answers = await ask(requests, options, verb === 'check' || verb === 'build')
  const read = sources.flatMap((source, index) => {
    const answer = answers[index]
    const examined = answer === undefined ? null : examine(source, answer)
    return examined === null ? [] : [{ ...examined, findings: [...source.warnings, ...examined.findings] }]
  })
  return { findings: [...unread, ...read].flatMap((one) => one.findings), examined: [...unread, ...read] }
}

function hasError(findings: readonly PolicyFinding[]): boolean {
  return findings.some((finding) => finding.level === 'error')
}

/**
 * Compiles each attached pack to a module of its own with the entry point `writ/main`, in the order given; an error in
 * one refuses them together. Unchanged packs come from `cacheDir` without starting a process. Rejects only when aborted,
 * or with `internal` where the package itself is damaged.
 */
export async function compilePacks(attachments: readonly Attachment[], options: ToolsOptions): Promise<Compiled> {
  const { findings, examined } = await examineAll('build', attachments, options)
  const made = new Map<Attachment, CompiledPack>()
  const found = [...findings]
  for (const { attachment, reply, rules, findings: own } of examined) {
    if (hasError(own)) continue
    const { pack, layer, kind, path } = attachment
    if (reply?.module === undefined) {
      const message = 'the compiler made no module'
      found.push({ file: path, line: 0, column: 0, level: 'error', code: 'tools_failed', message })
      continue
    }
    const module = Uint8Array.from(Buffer.from(reply.module, 'base64'))
    made.set(attachment, { pack, layer, kind, module, digest: digestOf(module), rules })
  }
  const packs = attachments.flatMap((attachment) => made.get(attachment) ?? [])
  if (!hasError(found)) return { ok: true, packs, warnings: found }
  return { ok: false, findings: found, good: packs, broken: attachments.filter((attachment) => !made.has(attachment)) }
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
  const tests = examined.flatMap(({ attachment, reply }) =>
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
    const message = `the files could not be formatted: ${clean(answer?.failed ?? '')}`
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

import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { WritError } from '../error.ts'
import { findConfig, loadConfig } from '../config.ts'
import { folderOf, makeFolders, makePrivate } from '../folder.ts'
import type { Attachment } from '../policy/policy.ts'
import {
  attachFolder,
  checkPacks,
  compilePacks,
  formatFiles,
  notText,
  type PackFile,
  type PolicyFinding,
  testPacks,
  textOf,
} from '../policy/tools.ts'
import { tmpdir } from 'node:os'
import { type Context, no, yes } from './context.ts'
import { counted, show, table } from './print.ts'

/** The named folders as packs, or what `writ.yaml` attaches. */
export async function attachments(
  context: Context,
  dirs: readonly string[],
): Promise<{ readonly packs: readonly Attachment[]; readonly cacheDir: string }> {
  const file = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  const config = file === null || !existsSync(file) ? null : loadConfig(file)
  const cacheDir =
    config === null ? join(tmpdir(), `writ-policy-${String(process.getuid?.() ?? 0)}`) : folderOf(config.data).policy
  // What lies there is believed to be what the compiler made.
  if (config === null) makePrivate(cacheDir)
  else makeFolders(cacheDir, 0o700)
  if (dirs.length === 0) {
    if (config === null)
      throw new WritError('no_config', 'There is no writ.yaml here or in a folder above.', {
        remedy: 'Name the folder of a pack, or run "writ init".',
      })
    return { packs: config.policies, cacheDir }
  }
  const packs: Attachment[] = []
  for (const dir of dirs) {
    const path = resolve(context.cwd, dir)
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true)
      throw new WritError('usage', `${dir} is no folder.`, { remedy: 'Name the folder of a pack.' })
    packs.push(config?.policies.find((policy) => policy.path === path) ?? (await attachFolder(path)))
  }
  return { packs, cacheDir }
}

function place(context: Context, finding: PolicyFinding): string {
  return `${relative(context.cwd, finding.file) || finding.file}:${String(finding.line)}:${String(finding.column)}`
}

export function findingLines(context: Context, findings: readonly PolicyFinding[]): string[] {
  return findings.map((finding) => `${place(context, finding)}: ${finding.level}: ${finding.message} [${finding.code}]`)
}

export async function policyCheck(context: Context, dirs: readonly string[]): Promise<number> {
  const { packs, cacheDir } = await attachments(context, dirs)
  const findings = await checkPacks(packs, { cacheDir })
  const errors = findings.filter((finding) => finding.level === 'error').length
  show(context, { packs: packs.map(({ pack, layer, kind, path }) => ({ pack, layer, kind, path })), findings }, () =>
    [
      ...findingLines(context, findings),
      `${counted(packs.length, 'pack')} checked: ${counted(errors, 'error')}, ${counted(findings.length - errors, 'warning')}`,
    ].join('\n'),
  )
  return errors === 0 ? yes : no
}

export async function policyTest(
  context: Context,
  dirs: readonly string[],
  filter: string | undefined,
): Promise<number> {
  const { packs, cacheDir } = await attachments(context, dirs)
  const { findings, tests } = await testPacks(packs, { cacheDir, ...(filter === undefined ? {} : { filter }) })
  const errors = findings.filter((finding) => finding.level === 'error').length
  const bad = tests.filter((test) => test.outcome === 'fail' || test.outcome === 'error')
  show(context, { findings, tests }, () =>
    [
      ...findingLines(context, findings),
      ...tests.map(
        (test) =>
          `${test.outcome.padEnd(5)} ${test.name}  ${relative(context.cwd, test.file)}:${String(test.line)}${test.message === '' ? '' : `\n      ${test.message}`}${test.output === '' ? '' : `\n      ${test.output.trimEnd()}`}`,
      ),
      `${counted(tests.length, 'test')}: ${String(tests.length - bad.length)} passed, ${String(bad.length)} failed`,
    ].join('\n'),
  )
  // No test at all proves nothing.
  return errors === 0 && bad.length === 0 && tests.length > 0 ? yes : no
}

export async function policyFormat(context: Context, dirs: readonly string[], checkOnly: boolean): Promise<number> {
  const { packs, cacheDir } = await attachments(context, dirs)
  const files: PackFile[] = []
  const findings: PolicyFinding[] = []
  for (const path of packs.flatMap((pack) => regoFiles(pack.path))) {
    const text = textOf(readFileSync(path))
    if (text !== null) files.push({ path, text })
    else findings.push({ file: path, line: 0, column: 0, level: 'error', code: 'not_text', message: notText })
  }
  // What is written back has to be what was read.
  if (findings.length > 0) {
    show(context, { findings }, () => findingLines(context, findings).join('\n'))
    return no
  }
  const formatted = await formatFiles(files, { cacheDir })
  if (!formatted.ok) {
    show(context, { findings: formatted.findings }, () => findingLines(context, formatted.findings).join('\n'))
    return no
  }
  const changed = formatted.files.filter((file) => file.changed)
  if (!checkOnly) for (const file of changed) writeFileSync(file.path, file.formatted)
  show(context, { changed: changed.map((file) => file.path) }, () =>
    [
      ...changed.map((file) => `${checkOnly ? 'would format' : 'formatted'} ${relative(context.cwd, file.path)}`),
      `${counted(files.length, 'file')}, ${String(changed.length)} ${checkOnly ? 'not formatted' : 'formatted'}`,
    ].join('\n'),
  )
  return checkOnly && changed.length > 0 ? no : yes
}

/** What a pack may be made of: nothing hidden, and no link, which could lead out of it or around in it. */
function regoFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith('.')) return []
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return regoFiles(path)
    return entry.isFile() && entry.name.endsWith('.rego') ? [path] : []
  })
}

export async function policyBuild(context: Context, dirs: readonly string[], out: string | undefined): Promise<number> {
  const { packs, cacheDir } = await attachments(context, dirs)
  const compiled = await compilePacks(packs, { cacheDir })
  if (!compiled.ok) {
    show(context, { findings: compiled.findings }, () => findingLines(context, compiled.findings).join('\n'))
    return no
  }
  const built = compiled.packs.map((pack) => ({
    pack: pack.pack,
    layer: pack.layer,
    kind: pack.kind,
    digest: pack.digest,
    bytes: pack.module.length,
  }))
  if (out !== undefined) {
    const folder = resolve(context.cwd, out)
    makeFolders(folder, 0o777)
    for (const pack of compiled.packs) writeFileSync(join(folder, `${pack.pack}.wasm`), pack.module)
  }
  show(context, { packs: built }, () =>
    table(
      ['pack', 'layer', 'kind', 'bytes', 'digest'],
      built.map((b) => [b.pack, b.layer, b.kind, String(b.bytes), b.digest]),
    ),
  )
  return yes
}

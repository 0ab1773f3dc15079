import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Command, type Option } from 'commander'
import { afterAll, describe, expect, it } from 'vitest'
import { declare } from '../src/cli/commands.ts'
import { sectionsOf } from '../src/cli/help.ts'
import { loadConfig } from '../src/config.ts'
import { loadCatalog } from '../src/plan/catalog.ts'
import { limitSettings } from '../src/plan/limits.ts'
import { attachFolder, checkPacks, compilePacks, testPacks } from '../src/policy/tools.ts'

const root = resolve(import.meta.dirname, '..')
const scratch = mkdtempSync(join(tmpdir(), 'writ-docs-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

interface Page {
  readonly name: string
  readonly text: string
}

const pages: readonly Page[] = [
  'README.md',
  'SECURITY.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
].map((name) => ({ name, text: readFileSync(join(root, name), 'utf8') }))

interface Fence {
  readonly page: string
  /** The words after the fence's three ticks. */
  readonly info: readonly string[]
  readonly text: string
}

const fences: readonly Fence[] = pages.flatMap(({ name, text }) =>
  [...text.matchAll(/^( *)```([^\n]*)\n([\s\S]*?)^\1```$/gm)].map((match) => ({
    page: name,
    info: (match[2] ?? '').split(' ').filter((word) => word !== ''),
    text: (match[3] ?? '').replaceAll(new RegExp(`^${match[1] ?? ''}`, 'gm'), ''),
  })),
)

function fencesOf(language: string, mark?: string): readonly Fence[] {
  return fences.filter(({ info }) => info[0] === language && (mark === undefined || info[1] === mark))
}

const program = new Command('writ').option('--config <file>')
declare(program, async () => await Promise.reject(new Error('nothing is run here')))

function leaves(command: Command, path: readonly string[]): readonly (readonly [readonly string[], Command])[] {
  return command.commands.flatMap((child) => {
    const here = [...path, child.name()]
    // A group has no option of its own; a command that has others below it does.
    const own = child.commands.length === 0 || child.options.length > 0 ? [[here, child] as const] : []
    return [...own, ...leaves(child, here)]
  })
}

const commands = leaves(program, [])

describe('the pages', () => {
  it('are there, and every relative link on them leads to a file and a heading', () => {
    expect(pages.length).toBeGreaterThanOrEqual(12)
    const broken: string[] = []
    let links = 0
    for (const page of pages) {
      const prose = page.text.replaceAll(/^( *)```[\s\S]*?^\1```$/gm, '')
      for (const [, target = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue
        links++
        const [file = '', anchor] = target.split('#')
        const path = file === '' ? join(root, page.name) : join(root, dirname(page.name), file)
        if (!existsSync(path)) broken.push(`${page.name}: ${target}`)
        else if (anchor !== undefined && !headings(readFileSync(path, 'utf8')).includes(anchor))
          broken.push(`${page.name}: ${target}`)
      }
    }
    expect(links).toBeGreaterThan(20)
    expect(broken).toEqual([])
  })

  it('name files of this repository that exist', () => {
    const named = pages.flatMap(({ name, text }) =>
      [...text.matchAll(/`((?:docs|src|test|tools|policies|bin|bench|examples|native)\/[\w./-]+\.\w+)`/g)].map(
        (match) => [name, match[1] ?? ''] as const,
      ),
    )
    expect(named.length).toBeGreaterThan(1)
    expect(named.filter(([, path]) => !existsSync(join(root, path)))).toEqual([])
  })

  it('keep the README readable in one go', () => {
    expect(readFileSync(join(root, 'README.md'), 'utf8').split('\n').length).toBeLessThanOrEqual(300)
  })
})

describe('commands shown', () => {
  const shown = fencesOf('sh').flatMap(({ page, text }) =>
    text
      .split('\n')
      .flatMap((line) => line.split(/\s\|\s|\s&&\s/))
      .map((line) => /^(?:sudo -u writ )?(?:bin\/)?writ\s+(.*)$/.exec(line.trim())?.[1])
      .filter((rest) => rest !== undefined)
      .map((rest) => ({ page, words: wordsOf(rest) })),
  )
  const inline = pages.flatMap(({ name, text }) =>
    [...text.matchAll(/`writ ([a-z][^`]*)`/g)].map((match) => ({ page: name, words: wordsOf(match[1] ?? '') })),
  )

  it('exist, with those flags and no missing argument', () => {
    expect(shown.length).toBeGreaterThan(20)
    expect(shown.flatMap(({ page, words }) => problemOf(words, true).map((problem) => `${page}: ${problem}`))).toEqual(
      [],
    )
  })

  it('exist where a sentence names them', () => {
    expect(inline.length).toBeGreaterThan(20)
    expect(
      inline.flatMap(({ page, words }) => problemOf(words, false).map((problem) => `${page}: ${problem}`)),
    ).toEqual([])
  })

  it('are all on the page of commands, as --help has them', async () => {
    const page = readFileSync(join(root, 'docs/cli.md'), 'utf8')
    const marker = /^<!-- From here on .*-->$/m.exec(page)?.[0]
    expect(marker).toBeDefined()
    const head = page.slice(0, page.indexOf(marker ?? '') + (marker ?? '').length)
    const body = commands.map(([path, command]) => reference(path, command)).join('\n')
    expect(commands.length).toBeGreaterThan(20)
    await expect(`${head}\n\n${body}`).toMatchFileSnapshot(join(root, 'docs/cli.md'))
  })

  it('have an npm script or a file behind them where they are not writ', () => {
    const scripts = (
      JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { readonly scripts: Record<string, string> }
    ).scripts
    const lines = fencesOf('sh').flatMap(({ text }) => text.split('\n'))
    const named = lines.flatMap((line) => /^npm (?:run (\S+)|(test))/.exec(line)?.slice(1).filter(Boolean) ?? [])
    expect(named.length).toBeGreaterThan(2)
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([])
    const files = lines.flatMap((line) => /^(?:node |bash )(\S+)/.exec(line)?.[1] ?? [])
    expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([])
  })
})

describe('examples in the pages', () => {
  it('are configurations that load, where they are marked as such', () => {
    const marked = fencesOf('yaml', 'writ.yaml')
    expect(marked.length).toBeGreaterThan(0)
    for (const [i, { text }] of marked.entries()) {
      const file = join(scratch, `writ-${String(i)}.yaml`)
      writeFileSync(file, text)
      expect(loadConfig(file).policies.length).toBeGreaterThan(0)
    }
  })

  it('are catalogs that load, where they are marked as such', () => {
    const marked = fencesOf('yaml', 'catalog.yaml')
    expect(marked.length).toBeGreaterThan(1)
    for (const [i, { text }] of marked.entries()) {
      const folder = join(scratch, `catalog-${String(i)}`)
      mkdirSync(join(folder, 'report'), { recursive: true })
      writeFileSync(join(folder, 'report', 'main.js'), 'console.log(writ.args)\n')
      writeFileSync(join(folder, 'catalog.yaml'), text)
      expect(loadCatalog(join(folder, 'catalog.yaml'), limitSettings()).targets.size).toBeGreaterThan(0)
    }
  })

  it('leave no yaml unmarked', () => {
    expect(fencesOf('yaml').filter(({ info }) => info.length !== 2)).toEqual([])
  })

  it('are policies that compile and whose tests pass', async () => {
    const attachments = []
    const tests = fencesOf('rego', 'test')
    const packs = fencesOf('rego').filter(({ info }) => info[1] === undefined)
    expect(packs.length).toBeGreaterThan(1)
    expect(tests.length).toBeGreaterThan(0)
    for (const [i, { text }] of packs.entries()) {
      const name = /^package writ\.pack\.(\w+)$/m.exec(text)?.[1] ?? ''
      const folder = join(scratch, `pack-${String(i)}`)
      mkdirSync(folder)
      writeFileSync(join(folder, 'rules.rego'), text)
      const own = tests.find((test) => test.text.includes(`package writ.pack.${name}_test\n`))
      if (own !== undefined) writeFileSync(join(folder, 'rules_test.rego'), own.text)
      attachments.push(await attachFolder(folder))
    }
    const options = { cacheDir: join(scratch, 'cache') }
    expect(await checkPacks(attachments, options)).toEqual([])
    expect(await compilePacks(attachments, options)).toMatchObject({ ok: true })
    const ran = await testPacks(attachments, options)
    expect(ran.tests.map(({ name, outcome }) => [name, outcome])).toEqual([
      ['org_test.test_tables_stay_out_of_the_sandbox', 'pass'],
      ['org_test.test_tables_may_go_to_staging', 'pass'],
    ])
  })

  it('are the rule of docs/examples, word for word', () => {
    const rule = readFileSync(join(root, 'docs/examples/no-customer-data.rego'), 'utf8')
    expect(fencesOf('rego').map(({ text }) => text)).toContain(rule)
  })

  it('are scripts that parse', () => {
    const scripts = fencesOf('js')
    expect(scripts.length).toBeGreaterThan(0)
    for (const [i, { text }] of scripts.entries()) {
      const file = join(scratch, `script-${String(i)}.mjs`)
      writeFileSync(file, text)
      expect(spawnSync(process.execPath, ['--check', file]).status).toBe(0)
    }
  })

  it('are JSON that clients can read', () => {
    const snippets = fencesOf('json')
    expect(snippets.length).toBeGreaterThan(2)
    for (const { text } of snippets) expect(() => JSON.parse(text) as unknown).not.toThrow()
  })
})

describe('the layout in the README', () => {
  const tree = fences.find(({ page, text }) => page === 'README.md' && text.startsWith('bin/'))?.text ?? ''
  const named = (indent: RegExp): readonly string[] => tree.split('\n').flatMap((line) => indent.exec(line)?.[1] ?? [])

  it('has every folder there is, and no other', () => {
    const passed = new Set(['node_modules', 'dist', '.git', '.ci', '.cache'])
    const folders = (path: string): readonly string[] =>
      readdirSync(path)
        .filter((name) => !passed.has(name) && statSync(join(path, name)).isDirectory())
        .toSorted()
    expect(named(/^([\w-]+)\//).toSorted()).toEqual(folders(root))
    expect(named(/^ {2}([\w-]+)\//).toSorted()).toEqual(folders(join(root, 'src')))
  })
})

function headings(text: string): readonly string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
    (match[1] ?? '')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(' ', '-'),
  )
}

/** Words of a shell line, quotes taken off; what the shell itself reads (redirections, comments) is left out. */
function wordsOf(line: string): readonly string[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((m) => m[1] ?? m[2] ?? m[3] ?? '')
  const end = words.findIndex((word) => /^\d*[<>]|^#/.test(word))
  return end < 0 ? words : words.slice(0, end)
}

function problemOf(words: readonly string[], whole: boolean): readonly string[] {
  let command: Command = program
  let at = 0
  for (; at < words.length; at++) {
    const next = command.commands.find((child) => child.name() === words[at])
    if (next === undefined) break
    command = next
  }
  const line = `writ ${words.join(' ')}`
  const group = command.commands.length > 0 && command.options.length === 0
  if (command === program || (group && (whole || at < words.length))) return [`${line}: there is no such command`]
  const options = [...command.options, ...program.options]
  const problems: string[] = []
  const given: string[] = []
  for (let i = at; i < words.length; i++) {
    const word = words[i] ?? ''
    if (!word.startsWith('--')) {
      if (word !== '') given.push(word)
      continue
    }
    const option = options.find(({ long }) => long === (word.split('=')[0] ?? ''))
    if (option === undefined && word !== '--help') problems.push(`${line}: there is no ${word}`)
    else if (option?.required === true && !word.includes('=')) i++
  }
  if (!whole) return problems
  const needed = command.registeredArguments.filter((argument) => argument.required).length
  const variadic = command.registeredArguments.some((argument) => argument.variadic)
  if (given.length < needed) problems.push(`${line}: an argument is missing`)
  if (!variadic && given.length > command.registeredArguments.length) problems.push(`${line}: one argument too many`)
  for (const option of command.options)
    if (option.mandatory && !words.includes(option.long ?? ''))
      problems.push(`${line}: ${option.long ?? ''} is missing`)
  return problems
}

function reference(path: readonly string[], command: Command): string {
  const options = command.options.filter((option) => !option.hidden)
  const usage = `writ ${path.join(' ')} ${command.usage()}`.replace(/\s+/g, ' ').trim()
  return [
    `## writ ${path.join(' ')}`,
    '',
    `${command.description()}.`,
    '',
    '```',
    usage,
    '```',
    ...(options.length === 0 ? [] : ['', '| option | meaning |', '|---|---|', ...options.map(row)]),
    ...sectionsOf(path.join(' ')).flatMap(({ title, lines }) => [
      '',
      `${title}:`,
      '',
      title === 'Examples' ? '```sh' : '```',
      ...lines,
      '```',
    ]),
    '',
  ].join('\n')
}

function row(option: Option): string {
  const { defaultValue: given } = option as { readonly defaultValue?: unknown }
  const unlessTold = typeof given === 'string' || typeof given === 'number' ? `; \`${String(given)}\` unless told` : ''
  const about = `${option.description.replaceAll('|', '\\|')}${option.mandatory ? '; required' : ''}${unlessTold}`
  return `| \`${option.flags}\` | ${about} |`
}

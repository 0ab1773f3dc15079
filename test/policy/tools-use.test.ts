import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import type { Attachment } from '../../src/policy/policy.ts'
import { attachFolder, compilePacks, formatFiles, testPacks } from '../../src/policy/tools.ts'
import { tools } from '../../src/policy/tools-process.ts'
import { brief, meta, packFolder } from './fixtures/tools.ts'

const { folder, cacheDir, pack } = await packFolder()

const good = `package writ.pack.good

${meta('GOOD-1', ', code: because')}
deny contains {"rule": rego.metadata.rule(), "message": $"not {input.action.name}"} if {
	input.phase == "request"
	input.action.name == "ping"
}
`

const doubling = Array.from({ length: 40 }, (_, n) => `\tx${n + 1} := [x${n}, x${n}, {"a": x${n}}]`).join('\n')
const bombText = `package writ.pack.bomb\n\np if {\n\tx0 := input\n${doubling}\n\tx40 == input.phase\n}\n`

describe('a hostile pack', () => {
  test('whose types double forty times ends with a finding and not with a hang', async () => {
    const bomb = await pack('bomb', { 'a.rego': bombText })
    const fine = await pack('fine', { 'a.rego': good.replace('pack.good', 'pack.fine') })
    let said: readonly string[] = []
    // On a slow machine a good pack takes longer than the first deadline too.
    for (const deadlineMs of [3000, 12_000, 48_000]) {
      const compiled = await compilePacks([bomb, fine], { cacheDir, deadlineMs })
      said = compiled.ok ? [] : compiled.findings.map(({ file, code }) => `${file} ${code}`)
      if (!said.includes(`${fine.path} tools_deadline`)) break
    }
    expect(said).toEqual([expect.stringMatching(new RegExp(`^${bomb.path} tools_(deadline|failed)$`))])
  }, 120_000)

  test('of ten megabytes, with a link, or with a hidden or odd name is not handed to the compiler', async () => {
    const large = await pack('large', { 'a.rego': `package writ.pack.large\n#${'x'.repeat(10_000_000)}` })
    const linked = await pack('linked', { 'a.rego': 'package writ.pack.linked\n', 'b\n.rego': '' })
    await symlink('/etc/passwd', join(linked.path, 'p.rego'))
    const binary = await pack('binary', { 'a.rego': 'package writ.pack.binary\n\0' })
    const empty = await pack('empty', { 'README.md': 'no rules', 'only_test.rego': 'package writ.pack.empty\n' })
    const climbing: Attachment = { pack: '../x', layer: 'team', kind: 'grant', path: join(folder, 'large', '..', 'x') }
    const gone: Attachment = { pack: 'gone', layer: 'team', kind: 'grant', path: join(folder, 'gone') }
    const all = [large, linked, binary, empty, climbing, gone]
    const compiled = await compilePacks(all, { cacheDir: join(folder, 'unused') })
    const findings = compiled.ok ? [] : compiled.findings
    expect(findings.map((finding) => finding.code)).toEqual([
      'too_large',
      'file_name',
      'not_a_file',
      'not_text',
      'empty_pack',
      'pack_name',
      'unreadable',
    ])
  })

  test('[G-policy-read-whole] with rules that would not be read is refused, and warned of where they are hidden', async () => {
    const common = await pack('common', { 'c.rego': good.replace('pack.good', 'pack.common') })
    const linking = await pack('linking', { 'a.rego': good.replace('pack.good', 'pack.linking') })
    await symlink(common.path, join(linking.path, 'common'))
    await symlink('nowhere', join(linking.path, 'README'))
    const shouting = await pack('shouting', { 'a.rego': good.replace('pack.good', 'pack.shouting'), 'B.REGO': '' })
    const hiding = await pack('hiding', {
      'a.rego': good.replace('pack.good', 'pack.hiding'),
      '.old/b.rego': '',
      '.git/HEAD': '',
      '.c.rego': '',
    })
    const compiled = await compilePacks([linking, shouting, hiding], { cacheDir })
    if (compiled.ok) throw new Error('compiled')
    expect(brief(compiled.findings, linking)).toEqual(['common:0 not_a_file'])
    expect(brief(compiled.findings, shouting)).toEqual(['B.REGO:0 file_name'])
    expect(compiled.broken).toEqual([linking, shouting])
    const fine = await compilePacks([hiding], { cacheDir })
    if (!fine.ok) throw new Error('refused')
    expect(brief(fine.warnings, hiding)).toEqual(['.c.rego:0 hidden_file', '.old:0 hidden_file'])
  })

  test('that holds a pipe is refused, and nobody waits for what comes out of it', async () => {
    const piped = await pack('piped', { 'b.rego': good.replace('pack.good', 'pack.piped') })
    execFileSync('sh', ['-c', 'mkfifo "$1"', 'sh', join(piped.path, 'a.rego')])
    const attached = await attachFolder(piped.path)
    expect(attached.pack).toBe('piped')
    const compiled = await compilePacks([attached], { cacheDir })
    expect(compiled.ok ? [] : brief(compiled.findings, piped)).toEqual(['a.rego:0 not_a_file'])
  })

  test('does not outlive a broker that was killed while it compiled', async () => {
    const module = fileURLToPath(new URL('../../src/policy/tools-child.ts', import.meta.url))
    const wasm = fileURLToPath(new URL('../../native/rego-tools/rego-tools.wasm.br', import.meta.url))
    const { digest, common } = tools()
    const request = { verb: 'check', pack: 'bomb', files: [{ path: 'bomb/a.rego', text: bombText }], ...common }
    // Nobody reads, kills or waits: the process has its own end, here after a second.
    const child = spawn(process.execPath, ['--liftoff-only', module, wasm, digest, '1000'], { env: {} })
    child.stdin.end(`${JSON.stringify(request)}\n`)
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null]
    expect([code, signal]).toEqual([null, 'SIGKILL'])
  })

  test('named twice is refused', async () => {
    const one = await pack('good', { 'a.rego': good })
    const compiled = await compilePacks([one, { ...one, layer: 'org' }], { cacheDir })
    expect(compiled.ok ? [] : compiled.findings.map((finding) => finding.code)).toEqual(['duplicate_pack'])
  })
})

describe('what the tools made', () => {
  test('is kept, so that unchanged packs start no process, and is not used when damaged', async () => {
    const one = await pack('good', { 'a.rego': good })
    const own = join(folder, 'kept')
    const first = await compilePacks([one], { cacheDir: own })
    expect(first.ok).toBe(true)
    // A deadline of no time: a process that starts now cannot answer, so what answers is the cache.
    expect(await compilePacks([one], { cacheDir: own, deadlineMs: 0 })).toEqual(first)
    const [entry] = await readdir(own)
    await writeFile(join(own, entry ?? ''), 'damaged')
    expect(await compilePacks([one], { cacheDir: own })).toEqual(first)
  })

  test('is the same module wherever the pack lies', async () => {
    const here = await pack('good', { 'a.rego': good })
    const there = { ...(await pack('there', { 'a.rego': good })), pack: 'good' }
    const a = await compilePacks([here], { cacheDir })
    // No time for a process: what was asked of the tools is the same, so the cache answers.
    const b = await compilePacks([there], { cacheDir, deadlineMs: 0 })
    expect(b).toEqual(a)
    expect(a.ok && a.packs[0]?.rules).toEqual({
      'GOOD-1': { at: 'good/a.rego:6', title: 'A rule', code: 'because', remedy: 'Ask' },
    })
  })

  test('is not waited for once the caller gave up', async () => {
    const one = await pack('good', { 'a.rego': good })
    const stop = AbortSignal.timeout(50)
    await expect(compilePacks([one], { cacheDir: join(folder, 'never'), signal: stop })).rejects.toThrow('timeout')
  })
})

test('Rego tests come back with file, line, outcome and what they print', async () => {
  const one = await pack('good', {
    'a.rego': good,
    'a_test.rego': `package writ.pack.good_test

import data.writ.pack.good

test_ping if count(good.deny) == 1 with input as {"phase": "request", "action": {"name": "ping"}}

test_wrong if {
	print("seen")
	count(good.deny) == 1 with input as {}
}

todo_test_later if false

test_whole if data.writ.main.grant == set() with input as {}
`,
  })
  const { findings, tests } = await testPacks([one], { cacheDir })
  expect(findings).toEqual([])
  expect(tests.map(({ name, file, line, outcome }) => [name, file.slice(one.path.length + 1), line, outcome])).toEqual([
    ['good_test.test_ping', 'a_test.rego', 5, 'pass'],
    ['good_test.test_wrong', 'a_test.rego', 7, 'fail'],
    ['good_test.todo_test_later', 'a_test.rego', 12, 'skip'],
    ['good_test.test_whole', 'a_test.rego', 14, 'pass'],
  ])
  expect(tests[1]?.output).toBe('seen\n')
})

test('files are formatted, and one that does not parse is named as it was given', async () => {
  const text = 'package x\np   :=  1\n'
  const formatted = await formatFiles([{ path: '../x/a.rego', text }], { cacheDir })
  expect(formatted).toEqual({
    ok: true,
    files: [{ path: '../x/a.rego', formatted: 'package x\n\np := 1\n', changed: true }],
  })
  const broken = await formatFiles([{ path: '../x/b.rego', text: 'package' }], { cacheDir })
  expect(broken.ok ? [] : broken.findings.map(({ file, line }) => [file, line])).toEqual([['../x/b.rego', 1]])
})

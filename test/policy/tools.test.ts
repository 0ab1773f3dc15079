import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Attachment } from '../../src/policy/policy.ts'
import { compilePacks, formatFiles, testPacks } from '../../src/policy/tools.ts'
import type { PolicyFinding } from '../../src/policy/tools.ts'
import { tools } from '../../src/policy/tools-process.ts'

let folder = ''
let cacheDir = ''

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'writ-tools-'))
  cacheDir = join(folder, 'cache')
})
afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function pack(
  name: string,
  files: Readonly<Record<string, string>>,
  kind: Attachment['kind'] = 'grant',
): Promise<Attachment> {
  const path = join(folder, name)
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(path, file)), { recursive: true })
    await writeFile(join(path, file), text)
  }
  return { pack: name, layer: 'team', kind, path }
}

/** `file:line code` of each finding, files relative to the pack. */
function brief(findings: readonly PolicyFinding[], { path }: Attachment): string[] {
  return findings
    .filter(({ file }) => file.startsWith(path))
    .map(({ file, line, code }) => `${file.slice(path.length + 1)}:${line} ${code}`)
}

function meta(id: string, more = ''): string {
  return `# METADATA\n# title: A rule\n# custom: {id: ${id}, remedy: Ask${more}}`
}

describe('a pack with errors', () => {
  let packs: readonly Attachment[] = []
  let findings: readonly PolicyFinding[] = []
  const of = (name: string): string[] => {
    const attachment = packs.find((one) => one.pack === name)
    return attachment === undefined ? [] : brief(findings, attachment)
  }
  const message = (code: string): string => findings.find((finding) => finding.code === code)?.message ?? ''

  beforeAll(async () => {
    packs = [
      await pack(
        'shape',
        {
          'a.rego': `package writ.pack.shape

deny contains {"rule": rego.metadata.rule()} if input.phase == "request"

${meta('A1')}
sandbox if input.phase == "request"

${meta('A2')}
deny contains {"rule": "mine"} if input.phase == "request"

${meta('A3')}
warn contains {"rule": rego.metadata.rule(), "mesage": "x"} if input.phase == "request"

${meta('A3')}
deny contains {"rule": rego.metadata.rule()} if input.phase == "egress"

# METADATA
# title: No remedy
# custom: {id: A4}
deny contains {"rule": rego.metadata.rule()} if input.phase == "egress"

# METADATA
# custom: {id: "A 5", remedy: x}
limit contains {"rule": rego.metadata.rule()} if input.phase == "egress"

${meta('A6')}
deny contains {"rule": rego.metadata.rule(), "message": input.resource.properties.labels.env} if input.phase == "egress"
`,
        },
        'guard',
      ),
      await pack(
        'guarding',
        {
          'g.rego': `package writ.pack.guarding

${meta('G1')}
grant contains {"rule": rego.metadata.rule()} if input.phase == "request"

${meta('G2')}
credential contains {"rule": rego.metadata.rule(), "name": "x"} if input.phase == "execution"
`,
        },
        'guard',
      ),
      await pack('names', {
        'n.rego': `package writ.pack.names

warns contains {"x": 1} if input.phase == "request"

gadgets contains {"x": 1} if input.phase == "request"

helper contains "x" if input.phase == "request"

lonely if input.phase == "request"

${meta('N1')}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	some x in helper
	x == input.subject.id
}
`,
      }),
      await pack('elsewhere', {
        'e.rego': `package writ.pack.elsewhere

import data.writ.pack.names.helper

# METADATA
# schemas: [{input: {type: object}}]
stolen if data.writ.pack.guarding.grant

faked if stolen with input as {}

${meta('E1')}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	faked
	helper
}
`,
        'other.rego': 'package writ.pack.other\n\nx := 1\n',
      }),
      await pack('builtins', {
        'b.rego': `package writ.pack.builtins

a := sprintf("%s", ["x"])

b := regex.split("a", "b")

c := yaml.unmarshal("a")

d := time.now_ns()

e := http.send({"method": "get", "url": "x"})

f := io.jwt.decode("x")

g := rand.intn("x", 2)

h := opa.runtime()

unused(x) := 1
`,
      }),
      await pack('phases', {
        'p.rego': `package writ.pack.phases

${meta('P1')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	input.context.plan.isolation == "host"
}

${meta('P2')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.context.plan.isolatoin == "host"
}

${meta('P3')}
deny contains {"rule": rego.metadata.rule()} if input.context.call.method == "DELETE"

${meta('P4')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase != "request"
	plan := input.context.plan
	plan.credentails
}

${meta('P5')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "egress"
	far
}

far if input.context.verdict.stage == "x"

${meta('P6')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase in {"execution", "approval"}
	fine
	input.phase == "approval"
	input.context.verdict.stage == "x"
}

fine if input.context.plan.limits.wall_s > 10
`,
      }),
      await pack('unphased', {
        'u.rego': `package writ.pack.unphased

${meta('U1')}
deny contains {"rule": rego.metadata.rule()} if input.phase == "exection"

${meta('U2')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "request"
	late
}

late if input.phase in {"execution", "egress"}
`,
      }),
      await pack('unsure', {
        'w.rego': `package writ.pack.unsure

${meta('W1')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	object.get(input.context, ["plan", "egres"], "") == "open"
}

${meta('W2')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.context.plan.isolation == "containr"
	some credential in input.context.plan.credentials
	weak(input.context.plan, credential)
}

weak(plan, credential) if {
	plan.egres == "open"
	credential.lane == "exposed"
	credential.lanes == "x"
}

weak(plan, _) if plan.kill in {"never", "best_effort"}

${meta('W3')}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase in {"execution", "request"}
	resource := input.resource
	resource.type in {"task", "bucket"}
	object.get(input.context, ["plan", "egress"], "closed") == "open"
	object.get(input.resource.properties.labels, "anything", "") == "x"
	object.get(input.action.properties.arguments, ["a", "b"], "") == "x"
	same(input.resource)
	same(input.subject)
	any_of(input.subject.id)
}

same(thing) if thing.type == "user"

same(thing) if thing.id == "x"

any_of(thing) if object.get({"a": 1}, thing, 0) == 1
`,
      }),
      await pack('spoof', {
        's.rego': `package writ.pack.spoof

rego.metadata.rule() := {"custom": {"id": "ORG-001"}}

${meta('S1')}
grant contains {"rule": rego.metadata.rule()} if input.phase == "request"
`,
      }),
      await pack('misplaced', {
        'm.rego': 'package writ.pack.misplaced\n\np := 1\n',
        'load_test.rego': `package writ.pack.misplaced\n\n${meta('M1')}\ndeny contains {"rule": rego.metadata.rule()}\n`,
      }),
      await pack('broken', { 'x.rego': 'package writ.pack.broken\n\ndeny contains {\n', 'sub/y.rego': 'deny\n' }),
    ]
    const compiled = await compilePacks(packs, { cacheDir })
    findings = compiled.ok ? [] : compiled.findings
  })

  test('names the line of each rule of a set that is not what the set takes', () => {
    expect(of('shape')).toEqual([
      'a.rego:3 metadata',
      'a.rego:8 output_form',
      'a.rego:13 output_element',
      'a.rego:18 missing_key',
      'a.rego:18 unknown_key',
      'a.rego:20 duplicate_id',
      'a.rego:25 metadata_remedy',
      'a.rego:30 metadata_id',
      'a.rego:32 missing_key',
      'a.rego:32 no_effect',
      'a.rego:37 bare_message',
    ])
    expect(message('no_effect')).toBe('"limit" has an effect in phase execution only')
    expect(message('unknown_key')).toBe('"warn" has no "mesage"; it has rule, message')
  })

  test('[G-guard-never-grants] a guard that grants or names a credential is refused', () => {
    expect(of('guarding')).toEqual(['g.rego:6 guard_grants', 'g.rego:11 guard_grants'])
  })

  test('a misspelt set, and a set nobody reads, are errors; a rule nobody reads is a warning', () => {
    expect(of('names')).toEqual(['n.rego:3 misspelt_set', 'n.rego:5 unknown_set', 'n.rego:9 unused_rule'])
    expect(message('misspelt_set')).toContain('did you mean "warn"?')
  })

  test('[G-pack-isolated] a pack that reads another pack, or replaces its input, is refused', () => {
    expect(of('elsewhere')).toEqual([
      'e.rego:3 foreign_import',
      'e.rego:5 schema_annotation',
      'e.rego:7 foreign_data',
      'e.rego:9 with_outside_test',
      'other.rego:1 package_name',
      'other.rego:3 unused_rule',
    ])
  })

  test('[G-policy-pure] a built-in outside the allow-list does not compile', () => {
    const refused = of('builtins').filter((line) => line.endsWith('builtin_not_allowed'))
    expect(refused).toEqual([3, 5, 7, 9, 11, 13, 15, 17].map((line) => `b.rego:${line} builtin_not_allowed`))
    expect(message('builtin_not_allowed')).toContain('use a string template')
  })

  test('[G-phase-fields] a rule that reads what its phase does not have is refused', () => {
    expect(of('phases')).toEqual([
      'p.rego:8 phase_field',
      'p.rego:16 phase_field',
      'p.rego:22 phase_field',
      'p.rego:30 phase_field',
      'p.rego:41 phase_field',
    ])
    expect(message('phase_field')).toContain('input.context.plan.isolation is not there in phase request')
  })

  test('[G-phase-fields] a rule that may read what its phase does not have, or compares a word there is not, is warned of', () => {
    expect(of('unsure')).toEqual([
      'w.rego:8 phase_field',
      'w.rego:16 unknown_word',
      'w.rego:22 phase_field',
      'w.rego:24 phase_field',
      'w.rego:27 unknown_word',
      'w.rego:35 unknown_word',
    ])
    const warnings = findings.filter(({ file }) => file.endsWith('w.rego'))
    expect(warnings.every(({ level }) => level === 'warning')).toBe(true)
    expect(warnings[0]?.message).toBe('input.context.plan.egres is not there in phase execution; correct the name')
    expect(warnings[4]?.message).toBe(
      'input.context.plan.kill is never "never" in phase execution; it is "best_effort", "confirmed"',
    )
  })

  test('a phase that does not exist, and phases that exclude each other, are errors', () => {
    expect(of('unphased')).toEqual(['u.rego:6 unknown_phase', 'u.rego:11 no_phase'])
  })

  test('a pack cannot name its rules by a function of its own', () => {
    expect(of('spoof').length).toBeGreaterThan(0)
  })

  test('a rule of a set in a test file, where it would never be in force, is an error', () => {
    expect(of('misplaced')).toEqual(['load_test.rego:6 rule_in_test'])
  })

  test('a file that does not parse is named with its line', () => {
    const lines = of('broken')
    expect(lines.every((line) => line.endsWith('rego_parse_error'))).toBe(true)
    expect(lines.some((line) => line.startsWith('x.rego:'))).toBe(true)
    expect(lines.some((line) => line.startsWith('sub/y.rego:1 '))).toBe(true)
  })
})

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

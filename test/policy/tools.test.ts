import { beforeAll, describe, expect, test } from 'vitest'
import type { Attachment } from '../../src/policy/policy.ts'
import { compilePacks } from '../../src/policy/tools.ts'
import type { PolicyFinding } from '../../src/policy/tools.ts'
import { brief, meta, packFolder } from './fixtures/tools.ts'

const { cacheDir, pack } = await packFolder()

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

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { payloadOf } from '../../src/approval/payload.ts'
import { answerable, refuseVerdict, standing } from '../../src/approval/requirement.ts'
import { checkStatement } from '../../src/approval/statement.ts'
import type { Approval } from '../../src/approval/approval.ts'
import { digestJson, digestOf } from '../../src/digest.ts'
import { neutral } from '../../src/mcp/neutral.ts'
import type { Plan } from '../../src/plan/plan.ts'
import { approvalOf, origin, person, planWith, signed, startMs, store, verdict } from '../approval/sample.ts'

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(
    '',
    '\n',
    '  | x',
    'Plan          sha256:',
    '\u202e',
    '\u001b[31m',
    '" 1 bytes',
    '\r\n',
    '\ud800',
    '\\u{202e}',
  ),
)

const files = store()

const planArbitrary: fc.Arbitrary<Plan> = fc
  .record({
    project: text,
    goal: text,
    context: text,
    inputs: fc.dictionary(fc.string({ minLength: 1, maxLength: 5 }), text, { maxKeys: 3 }),
    stdin: fc.option(text),
    argv: fc.array(text, { maxLength: 3 }),
    files: fc.uniqueArray(fc.tuple(fc.string({ minLength: 1, maxLength: 8 }), text, fc.boolean()), {
      selector: ([path]) => path,
      maxLength: 4,
    }),
    nonce: fc.stringMatching(/^[0-9a-f]{32}$/),
  })
  .map((made) => {
    const base = planWith()
    return planWith({
      nonce: made.nonce,
      task: {
        ...base.task,
        project_name: made.project.toWellFormed(),
        goal: made.goal.toWellFormed(),
        context: made.context.toWellFormed(),
        inputs: Object.fromEntries(Object.entries(made.inputs).map(([k, v]) => [k, v.toWellFormed()])),
      },
      stdin: made.stdin?.toWellFormed() ?? null,
      steps: [{ title: 'Run', argv: made.argv.map((word) => word.toWellFormed()), success: [0] }],
      files: made.files.map(([path, content, executable]) => files.add(path, content.toWellFormed(), executable)),
    })
  })

async function show(plan: Plan, approval: Approval, before: Plan | null = null): Promise<string> {
  return await payloadOf({ approval, plan, before, bytesOf: files.bytesOf })
}

describe('the payload', () => {
  it('[G-approval-shown] is another text for another plan, and the same for the same', async () => {
    await fc.assert(
      fc.asyncProperty(planArbitrary, planArbitrary, async (one, two) => {
        const approval = approvalOf(one)
        const other: Approval = { ...approval, plan: digestJson(two) }
        const same = digestOf(await show(one, approval)) === digestOf(await show(two, other))
        expect(same).toBe(digestJson(one) === digestJson(two))
      }),
      { numRuns: 150 },
    )
  })

  it('[G-approval-shown] is harmless to show and has the lines of Writ where they are, whatever a caller writes', async () => {
    await fc.assert(
      fc.asyncProperty(planArbitrary, planArbitrary, async (plan, before) => {
        for (const earlier of [null, before]) {
          const shown = await show(plan, approvalOf(plan), earlier)
          expect(neutral(shown)).toBe(shown)
          const own = shown.split('\n').filter((line) => !line.startsWith('  ') && line !== '')
          const labels = own.map(
            (line) =>
              /^(?:Approval apr|Words of others|NOT SHOWN|Changed since|Context, in|Standard input|[A-Z][a-z]+(?: for by| by)?)/.exec(
                line,
              )?.[0],
          )
          expect(labels.every((label) => label !== undefined)).toBe(true)
          for (const label of [
            'Approval apr',
            'Goal',
            'Project',
            'Target',
            'Egress',
            'Credentials',
            'Limits',
            'Steps',
            'Files',
            'Evidence',
            'Plan',
            'Requirement',
          ])
            expect([label, labels.filter((found) => found === label).length]).toEqual([label, 1])
        }
      }),
      { numRuns: 100 },
    )
  })
})

const roles = ['a', 'b', 'c']
const people = fc
  .array(fc.subarray(roles, { minLength: 1 }), { maxLength: 5 })
  .map((all) => all.map((held, at) => ({ subject: `p${String(at)}`, roles: held, key: '' })))
const stagesArbitrary = fc.uniqueArray(
  fc.record({
    id: fc.constantFrom('x', 'y', 'z'),
    roles: fc.subarray(roles, { minLength: 1 }),
    min: fc.integer({ min: 1, max: 2 }),
  }),
  { selector: (stage) => stage.id, minLength: 1, maxLength: 3 },
)

describe('people and stages', () => {
  it('[G-quorum] are answerable exactly where some order of answers satisfies them, each person once', () => {
    fc.assert(
      fc.property(people, stagesArbitrary, (all, stages) => {
        const approval = approvalOf(planWith(), { stages })
        const reachable = (state: Approval, left: typeof all): boolean => {
          if (standing(state).outcome === 'satisfied') return true
          const [next, ...rest] = left
          if (next === undefined) return false
          return (
            reachable(state, rest) ||
            stages.some(
              (stage) =>
                stage.roles.some((role) => next.roles.includes(role)) &&
                reachable({ ...state, verdicts: [...state.verdicts, verdict(state, next.subject, stage.id)] }, rest),
            )
          )
        }
        expect(answerable(approval, all)).toBe(reachable(approval, all))
      }),
      { numRuns: 200 },
    )
  })

  it('[G-quorum] never stand by answers the approval did not take, in whatever order they come', () => {
    const answer = fc.record({
      who: fc.integer({ min: 0, max: 3 }),
      stage: fc.constantFrom('x', 'y', 'z'),
      word: fc.constantFrom('approve', 'approve', 'approve', 'reject'),
    })
    fc.assert(
      fc.property(stagesArbitrary, fc.array(answer, { maxLength: 12 }), (stages, answers) => {
        let state = approvalOf(planWith(), { stages })
        for (const { who, stage, word } of answers) {
          const outcome = standing(state).outcome
          if (outcome !== 'open') break
          try {
            refuseVerdict(state, `p${String(who)}`, stage, word, startMs)
          } catch {
            continue
          }
          state = {
            ...state,
            verdicts: [...state.verdicts, verdict(state, `p${String(who)}`, stage, word)],
          }
        }
        const yes = state.verdicts.filter((one) => one.statement.verdict === 'approve')
        expect(new Set(state.verdicts.map((one) => one.by)).size).toBe(state.verdicts.length)
        const needed = stages.reduce((sum, stage) => sum + stage.min, 0)
        expect(standing(state).outcome === 'satisfied').toBe(
          yes.length === needed && yes.length === state.verdicts.length,
        )
      }),
      { numRuns: 300 },
    )
  })
})

describe('a statement', () => {
  const ada = person('ada', 'approver')
  const approval = approvalOf(planWith())
  const good = signed(approval, ada)
  const against = { approval, approvers: [ada], shown: digestOf('shown'), origin, nowMs: startMs }

  it('[G-approval-bound] with any byte changed is refused, with nothing but a refusal', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: good.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const bytes = Buffer.from(good, 'latin1')
        bytes[at] = (bytes[at] ?? 0) ^ by
        expect(() => checkStatement(bytes.toString('latin1'), against)).toThrow(
          expect.objectContaining({ code: 'approval_refused' }),
        )
      }),
      { numRuns: 500 },
    )
    expect(checkStatement(good, against).subject).toBe('ada')
  })
})

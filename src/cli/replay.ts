import { findConfig, loadConfig } from '../config.ts'
import { WritError } from '../error.ts'
import { folderOf } from '../folder.ts'
import { parseId } from '../id.ts'
import { parseIJson } from '../json.ts'
import { pinned, replayText, withoutApprovers } from '../policy/decision.ts'
import { generationDigest, openEngine } from '../policy/engine.ts'
import { checkInput } from '../policy/input.ts'
import { readGeneration } from '../policy/kept.ts'
import type { CompiledPack, Decision, PolicyInput } from '../policy/policy.ts'
import { compilePacks } from '../policy/tools.ts'
import { type Context, fileOf, no, readAll, withViews, yes } from './context.ts'
import { attachments, findingLines } from './policy.ts'
import { show, told } from './print.ts'

export interface EvalOptions {
  readonly input?: string | undefined
  readonly execution?: string | undefined
  readonly attached?: boolean | undefined
}

/** Nobody waits: what the broker would have given up is decided here all the same. */
const deadlineMs = 10_000

/** Decides an input with the attached packs, or makes a recorded decision again, of what it was made of then. */
export async function policyEval(context: Context, options: EvalOptions): Promise<number> {
  if ((options.input === undefined) === (options.execution === undefined))
    throw new WritError('usage', 'Give one of --input FILE and --execution ID.')
  const recorded = options.execution === undefined ? null : recordedOf(context, options.execution)
  if (recorded !== null && options.attached !== true) return await replay(context, recorded)
  const { packs, cacheDir } = await attachments(context, [])
  const compiled = await compilePacks(packs, { cacheDir })
  if (!compiled.ok) {
    show(context, { findings: compiled.findings }, () => findingLines(context, compiled.findings).join('\n'))
    return no
  }
  const text =
    recorded?.input ??
    (options.input === '-'
      ? (await readAll(context.stdin, 1_048_576)).toString('utf8')
      : fileOf(context, options.input ?? '').toString('utf8'))
  const decision = await decided(inputOf(text), compiled.packs)
  const before = recorded === null ? [] : [`The recorded decision was ${recorded.decision.effect}.`]
  show(context, { decision, ...(recorded === null ? {} : { recorded: recorded.decision }) }, () =>
    [...decisionLines(decision), ...before].join('\n'),
  )
  return decision.effect === 'allow' ? yes : no
}

interface Recorded {
  readonly decision: Decision
  readonly input: string
  /** Where what decided is kept. */
  readonly policyFolder: string
}

/** The recorded input, by the modules that decided then; the same where every byte of the answer is. */
async function replay(context: Context, { decision: recorded, input, policyFolder }: Recorded): Promise<number> {
  const packs = recorded.policy === null ? null : await readGeneration(policyFolder, recorded.policy)
  if (recorded.policy !== null && packs === null)
    throw new WritError(
      'not_found',
      'The modules that made this decision are not kept any more, or not as they were.',
      {
        remedy: `Restore "modules" and "generations" below ${policyFolder}, or ask the attached packs: --attached.`,
      },
    )
  const decision = await decided(inputOf(input), packs)
  const made = madeOf(decision).find(([one]) => replayText(one) === replayText(recorded))
  show(context, { decision, recorded, same: made !== undefined }, () =>
    [
      ...decisionLines(decision),
      made?.[1] ??
        (recorded.error === 'deadline'
          ? 'The recorded decision is an answer that did not come in time, which cannot be made again.'
          : `The recorded decision, ${recorded.effect}, does NOT come out of its own input and modules.`),
    ].join('\n'),
  )
  return made === undefined ? no : yes
}

/** What the broker may have made of an answer of policy before it was recorded (`src/path/ask.ts`), and how that is told. */
function madeOf(answer: Decision): readonly (readonly [decision: Decision, said: string])[] {
  const asking = pinned(answer, null)
  return [
    [answer, 'The recorded decision comes out the same, byte for byte.'],
    [
      asking,
      'The recorded decision comes out the same: people had answered another requirement, so they were asked anew.',
    ],
    ...(asking.effect === 'pending'
      ? ([
          [
            withoutApprovers(asking),
            'The recorded decision comes out the same: policy asked people, and nobody enrolled then could answer.',
          ],
        ] as const)
      : []),
  ]
}

async function decided(input: PolicyInput, packs: readonly CompiledPack[] | null): Promise<Decision> {
  const engine = openEngine({ threads: 1, deadlineMs })
  try {
    if (packs !== null) await engine.load({ number: 0, digest: generationDigest(packs), packs })
    return await engine.decide(input)
  } finally {
    await engine.close()
  }
}

function decisionLines(decision: Decision): readonly string[] {
  return [
    `effect  ${decision.effect}${decision.error === null ? '' : ` (${decision.error})`}`,
    ...decision.findings.map(
      (finding) =>
        `  ${finding.kind.padEnd(16)} ${finding.id}  ${finding.at}  ${finding.title}${finding.message === '' ? '' : ` : ${finding.message}`}`,
    ),
    ...decision.reasons.map((reason) => `  a caller is told  ${told(reason)}`),
  ]
}

function inputOf(text: string): PolicyInput {
  const refuse = (why: string): WritError =>
    new WritError('usage', `The input is ${why}.`, {
      remedy: 'Give one JSON document; policies/schema has the form of each phase, and --execution ID a recorded one.',
    })
  let value: unknown
  try {
    value = parseIJson(text, { maxBytes: 1_048_576 })
  } catch (failure) {
    if (failure instanceof WritError) throw refuse(failure.message)
    throw failure
  }
  const checked = checkInput(value)
  if (!checked.ok) throw refuse(`no writ.input/v1: ${checked.why}`)
  return checked.input
}

function recordedOf(context: Context, text: string): Recorded {
  const file = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  const id = parseId('exec', text)
  if (file === null || id === null)
    throw new WritError('not_found', `There is no execution ${text}.`, {
      remedy: '"writ executions list" shows what there is.',
    })
  const folder = folderOf(loadConfig(file).data)
  const found = withViews(
    folder,
    null,
    (views) =>
      views.decisions(id).findLast(({ decision, input }) => decision.phase === 'execution' && input !== null) ?? null,
  )
  if (found === null || found.input === null)
    throw new WritError('not_found', `There is no recorded input of ${text}.`, {
      remedy: '"writ executions list" shows what there is.',
    })
  return { decision: found.decision, input: found.input, policyFolder: folder.policy }
}

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import type { Context } from '../../src/cli/context.ts'
import { type EvalOptions, policyEval } from '../../src/cli/replay.ts'
import type { ExecutionId } from '../../src/id.ts'
import { answerWithKey } from '../../src/path/answer.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { edit, openWorld } from '../path/world.ts'
import { until } from '../wait.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { parts } = world
const { caller, folder } = world.broker
const kept = parts.ledger.views

interface Answered {
  readonly code: number
  readonly decision: Decision
  readonly recorded: Decision
  readonly same: boolean
}

async function evaluated(options: EvalOptions): Promise<Answered> {
  let data: unknown
  const context: Context = {
    env: {},
    cwd: folder,
    version: '0',
    stdin: new PassThrough(),
    configFlag: join(folder, 'writ.yaml'),
    json: true,
    tty: false,
    columns: null,
    say: () => undefined,
    note: () => undefined,
    data: (one) => void (data = one),
  }
  const code = await policyEval(context, options)
  return { code, ...(data as Omit<Answered, 'code'>) }
}

async function started(target: string, over = parts): Promise<ExecutionId> {
  const begun = await startExecution(over, openRunner(over), caller, { task_id: await world.task(caller, target) })
  if (begun.kind !== 'execution') throw new Error(begun.kind)
  return begun.id
}

const extra = join(folder, 'policies', 'extra', 'extra.rego')

/** Each as the broker may record it: allowed, asked, denied for want of people, and asked anew after an approval. */
async function recordedRuns(): Promise<Readonly<Record<string, ExecutionId>>> {
  const allowed = await started('sandbox')
  const pending = await started('signed')
  const unanswerable = await started('signed', { ...parts, approvers: () => [] })
  const anew = await started('signed')
  const [open] = kept.approvals({ execution: anew, state: 'open' }, 1)
  const full = { ...parts, maxRunning: 0 }
  await answerWithKey(full, openRunner(full), await world.yes(open?.id ?? ''))
  edit(extra, (text) => text.replaceAll('"request_ttl_s": 600', '"request_ttl_s": 900'))
  const before = parts.policy.generation?.digest
  await until('the requirement is another', () => parts.policy.generation?.digest !== before)
  openRunner(parts).enqueue(anew)
  await until('it is asked anew', () => kept.execution(anew)?.state === 'awaiting_approval')
  return { allowed, pending, unanswerable, anew }
}

describe('a recorded decision', () => {
  it('[G-policy-replay] comes out byte for byte of its own input and modules, whatever is attached since', async () => {
    const runs = await recordedRuns()
    const before = parts.policy.generation?.digest
    edit(
      extra,
      (text) => `# A line more, so that every rule stands elsewhere.\n${text}
# METADATA
# title: Nothing runs any more
# custom: {id: EXT-END, code: ended, remedy: "Wait."}
deny contains {"rule": rego.metadata.rule()} if input.phase == "execution"
`,
    )
    await until('the edit is in force', () => parts.policy.generation?.digest !== before)
    const effects: Record<string, string> = {}
    for (const [name, execution] of Object.entries(runs)) {
      const again = await evaluated({ execution })
      expect([name, again.same, again.code]).toEqual([name, true, 0])
      effects[name] = again.recorded.effect
      expect(await evaluated({ execution, attached: true })).toMatchObject({ code: 1, decision: { effect: 'deny' } })
    }
    expect(effects).toEqual({ allowed: 'allow', pending: 'pending', unanswerable: 'deny', anew: 'pending' })

    const execution = runs['allowed'] ?? ''
    const lists = join(folder, '.writ', 'policy', 'generations')
    const used = (await evaluated({ execution })).recorded.policy?.slice('sha256:'.length) ?? ''
    const list = join(lists, `${used}.json`)
    const text = readFileSync(list)
    // Another generation's packs under its name are not believed.
    const other = readdirSync(lists).find((name) => !name.startsWith(used)) ?? ''
    writeFileSync(list, readFileSync(join(lists, other)))
    await expect(evaluated({ execution })).rejects.toMatchObject({ code: 'not_found' })
    rmSync(list)
    await expect(evaluated({ execution })).rejects.toMatchObject({ code: 'not_found' })
    writeFileSync(list, text)
    expect((await evaluated({ execution })).same).toBe(true)
  }, 120_000)
})

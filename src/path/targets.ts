import { newId } from '../id.ts'
import type { Results } from '../execution/result.ts'
import { type Availability, targetState } from '../plan/available.ts'
import type { Target } from '../plan/entries.ts'
import { describeTarget, outlinePlan, planDigest, type TargetView } from '../plan/resolve.ts'
import type { Effect } from '../policy/policy.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import { newTask } from '../request/submit.ts'
import { mayView, mustView } from './admit.ts'
import { type Parts, unknownTarget } from './parts.ts'
import { foresee } from './submit.ts'

/** Every target the caller may see: an item of a listing is decided like anything else, as action `view`. */
export async function listTargets(
  parts: Parts,
  caller: Caller,
  args: Arguments['list_targets'],
): Promise<Results['list_targets']> {
  const catalog = parts.catalog()
  const able = await parts.availability()
  if (args.target_ref !== undefined) return await oneTarget(parts, caller, args.target_ref, able)
  const targets = []
  for (const [ref, target] of catalog.targets) {
    if (!(await mayView(parts, caller, ref))) continue
    targets.push({
      target_ref: ref,
      about: target.about,
      intents: target.intents,
      available: targetState(target, able).available,
    })
  }
  const first = targets.find(({ available }) => available)
  return {
    targets,
    next:
      first !== undefined
        ? { tool: 'list_targets', arguments: { target_ref: first.target_ref } }
        : {
            tell_user:
              targets.length === 0
                ? 'You may use no target here; ask the operator of this Writ.'
                : 'No target can be run on now; ask the operator of this Writ.',
          },
  }
}

async function oneTarget(
  parts: Parts,
  caller: Caller,
  ref: string,
  able: Availability,
): Promise<Results['list_targets']> {
  await mustView(parts, caller, ref)
  const catalog = parts.catalog()
  const entry = catalog.targets.get(ref)
  const target = describeTarget(
    catalog,
    ref,
    able,
    entry === undefined ? 'maybe' : await asked(parts, caller, entry, able),
  )
  const intent = target?.intents[0]
  if (target === null) throw unknownTarget()
  return {
    target,
    next:
      target.available && intent !== undefined
        ? { tool: 'submit_task', arguments: { target_ref: ref, execution_intent: intent.execution_intent } }
        : { tell_user: 'This target cannot be run on now; take another one, or ask the operator of this Writ.' },
  }
}

/**
 * Whether people are asked before a run, as policy answers now for a bare run of each intent: what a task says and holds may
 * change the answer, so this is a hint and no promise. Recorded nowhere, like any foresight.
 */
async function asked(
  parts: Parts,
  caller: Caller,
  target: Target,
  availability: Availability,
): Promise<TargetView['approval']> {
  const effects = new Set<Effect>()
  for (const execution_intent of target.intents) {
    const bare = { project_name: 'none', goal: 'none', target_ref: target.ref, execution_intent }
    const task = newTask(caller, bare, { id: newId('task'), nowMs: parts.clock.now(), files: [] })
    const plan = outlinePlan({ task, catalog: parts.catalog(), availability })
    if (plan === null) return 'maybe'
    const { effect } = await foresee(parts, caller, task, { state: 'ready', plan, digest: planDigest(plan) })
    effects.add(effect)
  }
  const [only] = effects
  if (effects.size !== 1) return 'maybe'
  return only === 'allow' ? 'never' : only === 'pending' ? 'always' : 'maybe'
}

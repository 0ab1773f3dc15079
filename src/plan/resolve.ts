import type { Digest, JsonObject } from '../digest.ts'
import { digestJson } from '../digest.ts'
import { WritError } from '../error.ts'
import { maxFiles, pathClash, showPath } from '../request/files.ts'
import type { Task, TaskFile } from '../request/task.ts'
import { targetState } from './available.ts'
import type { Availability } from './available.ts'
import type { Catalog } from './catalog.ts'
import { entryDigest } from './catalog.ts'
import { scriptRuntime } from './detect.ts'
import { containerBody, isolationOf } from './container.ts'
import type { Target } from './entries.ts'
import { containerEnvironment } from './environment.ts'
import { guideOf } from './guide.ts'
import type { Intent } from './intents.ts'
import { inputProblem } from './intents.ts'
import { constrain, leastMemoryMb } from './limits.ts'
import type { Missing, Plan, PlanImage, Resolution } from './plan.ts'
import { chooseProgram } from './program.ts'
import type { Question } from './program.ts'
import { roomProblem } from './room.ts'
import type { Runtime } from './schema.ts'
import { seccompDigest } from './seccomp.ts'

/**
 * Works out what would run: a pure function of what it is given. The same arguments give the same plan and digest.
 * A task it cannot resolve is `incomplete` and says what is missing and what would help; nothing in those texts names
 * a host, a path of this machine or an image. Names of other targets come from `visible` only, where that is given.
 *
 * @param contents text of the files `manifestPaths` named
 * @param nonce 128 random bits, 32 lower-case hex digits
 * @throws WritError `internal` for a nonce that is none
 */
export function resolve(question: {
  readonly task: Task
  readonly contents: ReadonlyMap<string, string>
  readonly catalog: Catalog
  readonly nonce: string
  readonly availability: Availability
  readonly visible?: ReadonlySet<string> | undefined
}): Resolution {
  const { task, catalog, nonce } = question
  if (!/^[0-9a-f]{32}$/.test(nonce)) throw new WritError('internal', 'a nonce has to be 32 lower-case hex digits')
  const target = catalog.targets.get(task.target_ref)
  if (target === undefined)
    return incomplete({
      what: `a target: there is no ${showPath(task.target_ref)}`,
      fix: 'Call list_targets and submit the task again with a target_ref it shows.',
      by: 'catalog',
    })
  const intent = target.intents.includes(task.intent) ? catalog.intents.get(task.intent) : undefined
  if (intent === undefined)
    return incomplete({
      what: `an intent: target "${target.ref}" has no ${showPath(task.intent)}`,
      fix: `Submit the task again with one of: ${target.intents.join(', ')}.`,
      by: 'catalog',
      target_ref: target.ref,
    })
  const problem = inputProblem(intent, task.inputs)
  if (problem !== null)
    return incomplete({ what: problem, fix: 'Submit the task again with corrected inputs.', by: 'task' })

  const missing: Missing[] = []
  const least = leastMemoryMb(target.executor)
  if (task.constraints.memory_mb !== null && task.constraints.memory_mb < least)
    missing.push({
      what: `constraints.memory_mb of at least ${least}`,
      fix: 'Submit the task again with more memory, or without this constraint.',
      by: 'task',
    })
  const files = filesOf(task, intent, target, missing)
  const program = chooseProgram({ ...question, target, intent } satisfies Question)
  if ('missing' in program) return incomplete(...missing, ...program.missing)
  if (missing.length > 0) return incomplete(...missing)
  const state = targetState(target, question.availability)
  const image = state.available ? state.image : null
  const plan = frozen({ task, nonce, target, intent, catalog, files, program, image })
  const room = roomProblem(plan.executor, plan.limits, plan.files)
  if (room !== null) return incomplete(room)
  return { state: 'ready', plan, digest: planDigest(plan) }
}

/**
 * What a run of the intent on the target is whatever its files and steps are: for asking policy of any such run. Null
 * where nothing of the kind can run now. Never run itself, so its nonce is nobody's secret.
 */
export function outlinePlan(question: {
  readonly task: Task
  readonly catalog: Catalog
  readonly availability: Availability
}): Plan | null {
  const { task, catalog, availability } = question
  const target = catalog.targets.get(task.target_ref)
  const intent = catalog.intents.get(task.intent)
  const runtime = target?.runtimes[0]
  if (target === undefined || intent === undefined || runtime === undefined) return null
  const state = targetState(target, availability)
  if (!state.available) return null
  const program = { runtime, steps: [{ title: 'Run', argv: ['main'], success: [0] }], stdin: null }
  const nonce = '0'.repeat(32)
  return frozen({ task, nonce, target, intent, catalog, files: intent.files, program, image: state.image })
}

/** SHA-256 over the RFC 8785 form: what approvals, permits and receipts name. */
export function planDigest(plan: Plan): Digest {
  return digestJson(plan)
}

/** True when the catalog no longer says what it said of an entry the plan uses: the execution is superseded. */
export function usedEntriesChanged(plan: Plan, catalog: Catalog): boolean {
  return plan.entries.length === 0 || plan.entries.some(({ entry, digest }) => entryDigest(catalog, entry) !== digest)
}

/** What a caller sees of a plan: no executor, service address, image or file of the operator. */
export function planView(plan: Plan, digest: Digest): { readonly digest: string; readonly steps: readonly string[] } {
  return { digest, steps: plan.steps.map((step) => step.title) }
}

export interface TargetView {
  readonly target_ref: string
  readonly about: string
  readonly available: boolean
  readonly intents: readonly {
    readonly execution_intent: string
    readonly about: string
    readonly inputs: JsonObject
  }[]
  readonly guide: string
  readonly runtimes: readonly string[]
  readonly environment: readonly { readonly name: string; readonly about: string }[]
  readonly limits: JsonObject
  readonly approval: 'never' | 'maybe' | 'always'
}

/**
 * A target for `list_targets`: names and meanings of its environment, never values. Null where there is none.
 * @param approval what policy foresees
 */
export function describeTarget(
  catalog: Catalog,
  ref: string,
  availability: Availability,
  approval: TargetView['approval'],
): TargetView | null {
  const target = catalog.targets.get(ref)
  if (target === undefined) return null
  return {
    target_ref: ref,
    about: target.about,
    available: targetState(target, availability).available,
    intents: target.intents.flatMap((name) => {
      const intent = catalog.intents.get(name)
      return intent === undefined ? [] : [{ execution_intent: name, about: intent.about, inputs: intent.inputs }]
    }),
    runtimes: target.runtimes,
    guide: guideOf(target),
    environment: target.environment.map(({ name, about }) => ({ name, about })),
    limits: { ...target.limits },
    approval,
  }
}

function frozen(from: {
  readonly task: Task
  readonly nonce: string
  readonly target: Target
  readonly intent: Intent
  readonly catalog: Catalog
  readonly files: readonly TaskFile[]
  readonly program: { readonly runtime: Runtime; readonly steps: Plan['steps']; readonly stdin: string | null }
  readonly image: PlanImage | null
}): Plan {
  const { task, nonce, target, intent, catalog, files, program } = from
  const limits = constrain(target.limits, task.constraints)
  const names = [...new Set(target.services.flatMap((service) => service.credential ?? []))].sort()
  const entries = [
    'limits',
    `target:${target.ref}`,
    `intent:${intent.name}`,
    ...names.map((name) => `credential:${name}`),
  ]
  return {
    schema: 'writ.plan/v1',
    nonce,
    tenant: task.tenant,
    task: {
      id: task.id,
      revision: task.revision,
      owner: task.owner,
      agent: task.agent,
      project_name: task.project_name,
      goal: task.goal,
      context: task.context,
      inputs: task.inputs,
    },
    target: { ref: target.ref, about: target.about, labels: target.labels },
    intent: intent.name,
    code_origin: intent.code_origin,
    executor: target.executor,
    ...sandboxOf(target, limits, from.image),
    runtime: program.runtime,
    environment:
      target.container === null
        ? target.environment
        : containerEnvironment(target.environment, target.packages, program.runtime),
    steps: program.steps,
    stdin: program.stdin,
    files,
    services: target.services,
    hosts: [],
    credentials: names.map((name) => found(catalog.credentials.get(name))),
    limits,
    statement: {
      isolation: target.container === null ? 'process' : isolationOf(target.container.oci_runtime),
      egress: target.services.length > 0 ? 'gateway' : 'closed',
      delivery: [target.container === null ? 'ipc' : 'frames'],
      kill: 'confirmed',
    },
    entries: entries.map((entry) => ({ entry, digest: found(entryDigest(catalog, entry) ?? undefined) })),
  }
}

/** What the executor is told beside the steps: nothing for an isolate; for a container its exact create body. */
function sandboxOf(target: Target, limits: Plan['limits'], image: PlanImage | null): Pick<Plan, 'engine' | 'image'> {
  const { container } = target
  if (container === null || image === null) return { engine: {}, image: null }
  return {
    engine: {
      protocol: 'writ-frame/1',
      agent: image.agent,
      container: { oci_runtime: container.oci_runtime, cpus_m: container.cpus_m },
      create: containerBody({ image, limits, container, seccomp: seccompDigest }),
    },
    image,
  }
}

/** The task's files and the intent's; where only the operator's code may run, a task brings no code. */
function filesOf(task: Task, intent: Intent, target: Target, missing: Missing[]): readonly TaskFile[] {
  const files = [...task.files, ...intent.files].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
  if (intent.code_origin === 'operator') {
    const code = task.files.find(
      (file) => mayBeCode(file, intent.files) || (target.executor !== 'isolate' && steersTools(file)),
    )
    if (code !== undefined)
      missing.push({
        what: `a task without code: "${intent.name}" runs the operator's code only, and ${showPath(code.path)} could be taken for code`,
        fix: 'Remove that file; send data under an ending such as .json, .csv or .txt.',
      })
  }
  const own = new Set(intent.files.map((file) => file.path))
  const same = task.files.find((file) => own.has(file.path))
  const clash = same === undefined ? pathClash(files.map((file) => file.path)) : null
  if (same !== undefined || clash !== null)
    missing.push({
      what: `another name for ${showPath(same?.path ?? clash?.[1] ?? '')}: it stands in the way of a file of the intent`,
      fix: 'Rename or remove that file of the task.',
    })
  if (files.length > maxFiles)
    missing.push({
      what: `room: the task and the intent have more than ${maxFiles} files together`,
      fix: 'Remove files of the task.',
    })
  return files
}

/**
 * Where the operator's code imports `./lib`, a caller's `lib` or `lib.js` must not be what it gets: no known ending of
 * code, no name without an ending, and none that an operator's file continues.
 */
function mayBeCode(file: TaskFile, own: readonly TaskFile[]): boolean {
  const name = file.path.slice(file.path.lastIndexOf('/') + 1)
  return (
    file.executable ||
    !/[^.]\.[A-Za-z0-9]+$/.test(name) ||
    scriptRuntime(file.path, undefined) !== null ||
    own.some((one) => one.path.startsWith(`${file.path}.`))
  )
}

/** Beside an operator's program in a container: what tools read from their working folder as instructions. */
function steersTools(file: TaskFile): boolean {
  const name = file.path.slice(file.path.lastIndexOf('/') + 1)
  return (
    name.startsWith('.') ||
    /^(?:package(?:-lock)?|npm-shrinkwrap|deno|tsconfig|jsconfig|composer|bower|nx|turbo|lerna)\b[^/]*\.json$/i.test(
      name,
    ) ||
    /^(?:pom|build)\.xml$/i.test(name) ||
    /\.(?:toml|cfg|ini|mk|mak|cmake|gradle|conf|config|properties|lock|pth|so|dll|node|wasm|pyc|jar|class|pl|pm|rb|php|lua|awk|sed|mod|work|sum|whl|egg|zip|tgz)$/i.test(
      name,
    )
  )
}

function incomplete(...missing: readonly Missing[]): Resolution {
  return { state: 'incomplete', missing }
}

/** The catalog checked its own names when it was read; a gap here is a fault of ours. */
function found<T>(value: T | undefined): T {
  if (value === undefined) throw new WritError('internal', 'the catalog lacks an entry it refers to')
  return value
}

import type { Json } from '../digest.ts'
import { showPath } from '../request/files.ts'
import type { Task } from '../request/task.ts'
import { runnable, targetState } from './available.ts'
import type { Availability } from './available.ts'
import type { Catalog } from './catalog.ts'
import { interpreter, programRuntime, recipeOf, runsKind } from './commands.ts'
import { detect, scriptRuntime } from './detect.ts'
import type { Detected } from './detect.ts'
import type { Target } from './entries.ts'
import { filledInputs, referencedInput } from './intents.ts'
import type { BuiltinName, Intent } from './intents.ts'
import type { Missing, PlanStep } from './plan.ts'
import type { Runtime } from './schema.ts'

export interface Question {
  readonly task: Task
  readonly contents: ReadonlyMap<string, string>
  readonly catalog: Catalog
  readonly availability: Availability
  /** Targets whose names the caller may learn; all where it is absent. */
  readonly visible?: ReadonlySet<string> | undefined
  readonly target: Target
  readonly intent: Intent
}

/** On an isolate `argv[0]` of a step is the script's path inside the project, the rest its arguments. */
export type Program =
  | { readonly runtime: Runtime; readonly steps: readonly PlanStep[]; readonly stdin: string | null }
  | { readonly missing: readonly Missing[] }

/** Runtime and steps of a task on its target, or what it lacks for them. */
export function chooseProgram(question: Question): Program {
  const { target, availability } = question
  if (!runnable(target.executor))
    return unavailable(
      `an executor for target "${target.ref}": this release of Writ has none of its kind`,
      suggestion(question, null),
    )
  const program = programFor(question)
  if ('missing' in program) return program
  if (!targetState(target, availability).available)
    return unavailable(`target "${target.ref}": it is not available now`, suggestion(question, program.runtime))
  return program
}

function programFor(question: Question): Program {
  const { intent } = question
  if (intent.steps !== null) return operatorProgram(question, intent.steps)
  const name = intent.name as BuiltinName
  switch (name) {
    case 'run_script':
      return scriptProgram(question)
    case 'install_and_test':
    case 'build':
      return projectProgram(question, name)
  }
}

function operatorProgram(question: Question, steps: NonNullable<Intent['steps']>): Program {
  const { task, intent, contents, target } = question
  const inputs = filledInputs(intent, task.inputs)
  const paths = new Set([...task.files, ...intent.files].map((file) => file.path))
  const made: PlanStep[] = []
  let runtime: Runtime | null = null
  for (const step of steps) {
    const argv: string[] = []
    for (const argument of step.argv) {
      const name = referencedInput(argument)
      const value = name === null ? argument : asArgument(inputs.get(name))
      if (value === null)
        return lacking(`a value for the input "${name ?? ''}" that can be an argument`, {
          fix: 'Submit the task again with it.',
          by: 'task',
        })
      argv.push(value)
    }
    const script = argv[0] ?? ''
    if (!paths.has(script) && target.executor !== 'isolate') {
      runtime ??= programRuntime(script)
      made.push({ title: step.title, argv, success: step.success })
      continue
    }
    if (!paths.has(script)) return lacking(`the file ${showPath(script)}`, 'Upload it with upload_artifact.')
    const kind = scriptKind(question, script, contents.get(script))
    if ('missing' in kind) return kind
    runtime = runtime === 'typescript' ? runtime : kind.runtime
    made.push({ title: step.title, argv: [...kind.command, ...argv.slice(1)], success: step.success })
  }
  if (runtime === null)
    return lacking(`a step: "${intent.name}" has none`, {
      fix: 'Quote this to the operator of this Writ.',
      by: 'people',
    })
  return { runtime, steps: made, stdin: null }
}

function scriptProgram(question: Question): Program {
  const { task, contents } = question
  const inputs = task.inputs as { readonly script?: string; readonly args?: readonly string[]; readonly stdin?: string }
  const chosen = chooseScript(question, inputs.script)
  if ('missing' in chosen) return chosen
  const kind = scriptKind(question, chosen.script, contents.get(chosen.script))
  if ('missing' in kind) return kind
  return {
    runtime: kind.runtime,
    steps: [{ title: `Run ${chosen.script}`, argv: [...kind.command, ...(inputs.args ?? [])], success: [0] }],
    stdin: inputs.stdin ?? null,
  }
}

/** The script that `inputs` name, else the lone one, else the project's own, else the only main or index at the root. */
function chooseScript(
  { task, contents }: Question,
  wanted: string | undefined,
): { readonly script: string } | { readonly missing: readonly Missing[] } {
  const paths = task.files.map((file) => file.path)
  if (wanted !== undefined) {
    const plain = wanted.replace(/^(?:\.\/)+/, '')
    if (paths.includes(plain)) return { script: plain }
    if (/[\n;{}()]/.test(wanted))
      return lacking('a script among the files: "inputs.script" is its path, not its text', {
        fix: 'Submit the task again with the code as a file, and with its path as "inputs.script".',
        by: 'task',
      })
    return lacking(`the file ${showPath(wanted)} that "inputs.script" names`, 'Upload it with upload_artifact.')
  }
  if (paths.length === 0) return lacking('a script: the task has no files', 'Upload one with upload_artifact.')
  const scripts = paths.filter((path) => scriptRuntime(path, contents.get(path)) !== null && !path.endsWith('.d.ts'))
  const [only] = scripts
  if (only !== undefined && scripts.length === 1) return { script: only }
  const main = detect(paths, contents).find((kind) => kind.main !== null)?.main
  if (main !== undefined && main !== null) return { script: main }
  const named = scripts.filter((path) => /^(?:main|index)\.[a-z]+$/.test(path))
  if (named[0] !== undefined && named.length === 1) return { script: named[0] }
  if (scripts.length === 0)
    return lacking(
      'a script: none of the files is one Writ knows by its name or first line',
      'Upload it under a name with an ending such as .js, .ts or .py, or submit the task again with its path as "inputs.script".',
    )
  const some = scripts.slice(0, 5).map(showPath).join(', ')
  return lacking(`which script to run: there are ${scripts.length}`, {
    fix: `Submit the task again with "inputs.script": one of ${some}${scripts.length > 5 ? ' …' : ''}.`,
    by: 'task',
  })
}

/** What a script is and what starts it: on an isolate its path alone, in a container its interpreter. */
function scriptKind(
  question: Question,
  path: string,
  content: string | undefined,
): { readonly runtime: Runtime; readonly command: readonly string[] } | { readonly missing: readonly Missing[] } {
  const { target } = question
  const runtime = scriptRuntime(path, content)
  if (runtime === null)
    return lacking(
      `a runtime for ${showPath(path)}: neither its name nor its first line tells one`,
      'Give it an ending such as .js, .ts or .py.',
    )
  if (!target.runtimes.includes(runtime))
    return lacking(
      `${words[runtime]} for ${showPath(path)}: target "${target.ref}" runs ${list(target.runtimes)}`,
      suggestion(question, runtime),
    )
  if (/\.[jt]sx$/i.test(path))
    return lacking(
      `plain JavaScript or TypeScript in ${showPath(path)}: JSX does not run here`,
      'Upload it without JSX under the ending .js or .ts.',
    )
  const command = target.executor === 'isolate' ? [path] : interpreter(runtime, path, content)
  if (command === null)
    return lacking(
      `a project for ${showPath(path)}: a lone file in ${words[runtime]} does not run`,
      'Upload a project.',
    )
  return { runtime, command }
}

function projectProgram(question: Question, intent: 'install_and_test' | 'build'): Program {
  const { task, contents, target } = question
  const paths = task.files.map((file) => file.path)
  const kinds = detect(paths, contents)
  const kind = kinds.find((one) => target.executor !== 'isolate' && runsKind(target, one)) ?? kinds[0]
  if (kind === undefined) return lacking(...noProject(paths))
  const missing: Missing[] = []
  if (kind.problem !== null)
    missing.push({ what: `a readable manifest: ${kind.problem}`, fix: 'Correct the file and upload it again.' })
  if (target.executor !== 'isolate' && runsKind(target, kind)) {
    if (missing.length > 0) return { missing }
    const { args = [] } = task.inputs as { readonly args?: readonly string[] }
    const recipe = recipeOf({ kind, intent, paths, contents, args, packages: target.packages })
    return 'missing' in recipe ? recipe : { runtime: kind.runtime, steps: recipe.steps, stdin: null }
  }
  const command = intent === 'build' ? kind.build : kind.test
  if (command === null && kind.problem === null) missing.push(noCommand(kind, intent))
  const commands = [...kind.install, ...(command === null ? [] : [command])]
    .map((argv) => argv.join(' '))
    .join(', then ')
  missing.push({
    what: `a target that installs packages and runs commands: this is a ${words[kind.runtime]} project (${kind.because})${commands === '' ? '' : `, which needs ${commands}`}; target "${target.ref}" runs ${target.executor === 'isolate' ? 'scripts only' : list(target.runtimes)}`,
    ...suggestion(question, kind.runtime),
  })
  return { missing }
}

function noProject(paths: readonly string[]): readonly [string, string] {
  const deep = paths.find((path) =>
    /\/(?:package\.json|pyproject\.toml|requirements\.txt|setup\.py|go\.mod|Cargo\.toml)$/.test(path),
  )
  if (deep !== undefined)
    return [
      `a project at the root of the task: ${showPath(deep)} lies in a folder`,
      'Upload the files again without that folder.',
    ]
  return [
    'a project: no package.json, pyproject.toml, requirements.txt, go.mod, Cargo.toml or Makefile is among the files',
    'Upload it with upload_artifact.',
  ]
}

function noCommand(kind: Detected, intent: 'install_and_test' | 'build'): Missing {
  const what = intent === 'build' ? 'a build' : 'tests'
  if (kind.because === 'package.json')
    return {
      what: `${what}: package.json has no "${intent === 'build' ? 'build' : 'test'}" script`,
      fix: 'Add the script and upload package.json again.',
    }
  return {
    what: `${what}: the ${words[kind.runtime]} project shows none`,
    fix:
      intent === 'build'
        ? 'Add what describes the build, or submit the task with another intent.'
        : 'Add tests and upload them.',
  }
}

/** Which targets of this catalog would do; only such as the caller may learn of. */
function suggestion({ catalog, availability, visible, target, intent }: Question, runtime: Runtime | null): Fix {
  const scripts = intent.steps !== null || intent.name === 'run_script'
  const fitting = [...catalog.targets.values()].filter(
    (other) =>
      other.ref !== target.ref &&
      (visible === undefined || visible.has(other.ref)) &&
      other.intents.includes(intent.name) &&
      (runtime === null || other.runtimes.includes(runtime)) &&
      (scripts || other.executor !== 'isolate'),
  )
  const now = fitting.filter((other) => targetState(other, availability).available)
  const names = (of: readonly Target[]): string =>
    of
      .slice(0, 5)
      .map((other) => `"${other.ref}"`)
      .join(' or ')
  const [first] = now
  if (first !== undefined)
    return { fix: `Submit the task for target ${names(now)}.`, by: 'task', target_ref: first.ref }
  if (fitting.length > 0)
    return {
      fix: `Target ${names(fitting)} would do, but is not available now; ask the operator of this Writ.`,
      by: 'people',
    }
  return { fix: 'No target of this Writ would do; ask the operator for one.', by: 'people' }
}

const words: Readonly<Record<Runtime, string>> = {
  javascript: 'JavaScript',
  typescript: 'TypeScript',
  python: 'Python',
  shell: 'shell',
  go: 'Go',
  rust: 'Rust',
}

function list(runtimes: readonly Runtime[]): string {
  return runtimes.length === 0 ? 'no scripts' : runtimes.map((runtime) => words[runtime]).join(' and ')
}

function asArgument(value: Json | undefined): string | null {
  if (typeof value === 'string') return value.includes('\0') ? null : value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : null
}

type Fix = Omit<Missing, 'what'>

/** @param fix what to do, in words alone where it is to send files of this task */
function lacking(what: string, fix: string | Fix): { readonly missing: readonly Missing[] } {
  return { missing: [{ what, ...(typeof fix === 'string' ? { fix } : fix) }] }
}

/** The reason is the operator's; a caller learns only that it is so. */
function unavailable(what: string, elsewhere: Fix): { readonly missing: readonly Missing[] } {
  const wait: Fix = { fix: 'Start it again later, or ask the operator of this Writ.', by: 'people' }
  return lacking(what, { ...(elsewhere.target_ref === undefined ? wait : elsewhere), unavailable: true })
}

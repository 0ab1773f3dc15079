import { posix } from 'node:path'
import ivm from 'isolated-vm'
import { openBridge, outputName } from './bridge.ts'
import type { BridgeLimits, Surroundings } from './bridge.ts'
import { describeFailure } from './failure.ts'
import { makeInspect } from './prelude/inspect.ts'
import { prelude } from './prelude/prelude.ts'
import type { Begin } from './prelude/prelude.ts'
import { makeWeb } from './prelude/web.ts'
import { ProjectError, refuseImport, resolvePath, sourceOf } from './project.ts'
import type { Files } from './project.ts'
import { callBytes } from './wire.ts'

/** An isolate with the prelude in it and no code of a caller yet. Good for one step. */
export interface Guest {
  readonly memoryMb: number
  run(step: GuestStep): Promise<GuestEnd>
  dispose(): void
}

export interface GuestStep {
  readonly entry: string
  readonly files: Files
  readonly outputs: Map<string, Buffer>
  readonly begin: Begin
  readonly limits: BridgeLimits
  /** Milliseconds after which a single turn is interrupted: a second net under the run host's deadline. */
  readonly timeoutMs: number
  readonly io: Pick<Surroundings, 'print' | 'congested' | 'fetch' | 'unfetch'>
  /** Resolves when there is room for output again. */
  room(): Promise<void>
  /** Called with the function that hands an answer to the guest's `fetch` of that number. */
  answers(deliver: (id: number, header: string, body: Uint8Array) => void): void
}

export type GuestEnd =
  | { readonly why: 'exited'; readonly exit: number; readonly reason: 'guest_error' | null }
  | { readonly why: 'memory' | 'cpu' | 'callback_quota' }

const preludeText = `return (${String(prelude)})({call:$0, read:$1, wait:$2, chunk:$3}, (${String(makeInspect)})(), ${String(makeWeb)})`
const rootText = `import done from 'writ:done'\nimport * as entry from 'writ:entry'\nawait done(entry.default)`
const doneText = `const done = globalThis['writ:done']\ndelete globalThis['writ:done']\nexport default done`
const writText = `const writ = globalThis.writ\nexport const { env, args, stdin, inputs, files, readText, readBytes, writeFile, exit } = writ\nexport default writ`

export async function openGuest(memoryMb: number, fatal: () => void): Promise<Guest> {
  return await openContext(openIsolate(memoryMb, fatal), memoryMb)
}

/**
 * A guest that costs its first run less: a program of ours has run in another context of its isolate before, which is gone.
 * What a run does for the first time takes several times as long as later, in this process and in the isolate.
 */
export async function openRehearsedGuest(memoryMb: number, fatal: () => void): Promise<Guest> {
  const isolate = openIsolate(memoryMb, fatal)
  const rehearsal = await openContext(isolate, memoryMb)
  await rehearsal.run({
    entry: 'main.js',
    files: new Map([['main.js', Buffer.from('console.log(writ.inputs.word)\nexport default 0')]]),
    outputs: new Map(),
    begin: { env: {}, args: [], stdin: '', inputs: { word: '' }, files: ['main.js'] },
    limits: { outputs: 1024 },
    timeoutMs: 5000,
    io: { print: () => undefined, congested: false, fetch: () => undefined, unfetch: () => undefined },
    room: () => Promise.resolve(),
    answers: () => undefined,
  })
  rehearsal.forget()
  return await openContext(isolate, memoryMb)
}

function openIsolate(memoryMb: number, fatal: () => void): ivm.Isolate {
  return new ivm.Isolate({ memoryLimit: Math.max(memoryMb, 8), inspector: false, onCatastrophicError: fatal })
}

async function openContext(isolate: ivm.Isolate, memoryMb: number): Promise<Guest & { forget(): void }> {
  const context = await isolate.createContext()
  const fixed: Fixed = {
    root: await isolate.compileModule(rootText, { filename: 'writ:root' }),
    done: await isolate.compileModule(doneText, { filename: 'writ:done' }),
  }
  let live: GuestRun | null = null
  const deliver: Deliver = await context.evalClosure(
    preludeText,
    [
      new ivm.Callback((op: unknown, text: unknown) => live?.bridge.call(op, text) ?? 'refused'),
      new ivm.Callback((path: unknown) => live?.read(path)),
      new ivm.Reference(async () => await live?.wait()),
      callBytes,
    ],
    { result: { reference: true }, filename: 'writ:prelude', timeout: 5000 },
  )
  return {
    memoryMb,
    async run(step) {
      live = startRun(isolate, context, deliver, fixed, step)
      const end = await live.end
      live.bridge.close()
      return end
    },
    dispose() {
      if (!isolate.isDisposed) isolate.dispose()
    },
    forget() {
      deliver.release()
      for (const module of [fixed.root, fixed.done]) module.release()
      context.release()
    },
  }
}

/** Runs the guest's side of the prelude with these arguments. */
type Wake = (...args: readonly unknown[]) => Promise<unknown>
type Deliver = ivm.Reference<(...args: unknown[]) => unknown>

/** Modules that are the same for every step, compiled while the worker waits. */
interface Fixed {
  readonly root: ivm.Module
  readonly done: ivm.Module
}

interface GuestRun {
  readonly bridge: ReturnType<typeof openBridge>
  readonly end: Promise<GuestEnd>
  read(path: unknown): unknown
  wait(): Promise<void>
}

function startRun(
  isolate: ivm.Isolate,
  context: ivm.Context,
  deliver: Deliver,
  fixed: Fixed,
  step: GuestStep,
): GuestRun {
  const startedAt = performance.now()
  const { promise: end, resolve } = Promise.withResolvers<GuestEnd>()
  let over = false
  const settle = (value: GuestEnd): void => {
    over = true
    resolve(value)
  }

  /** A turn of the guest ended badly. Its text decides nothing: a guest may throw any words it likes. */
  function fail(error: unknown): void {
    if (over) return
    if (isolate.isDisposed) return settle({ why: 'memory' })
    if (performance.now() - startedAt >= step.timeoutMs) return settle({ why: 'cpu' })
    step.io.print('stderr', `${describeFailure(error)}\n`)
    settle({ why: 'exited', exit: 1, reason: 'guest_error' })
  }

  let finished = false
  let turns = 0
  const fetches = new Set<number>()
  /** Lets the guest run once, microtasks included. A step ends when its entry has ended and nothing is left to wait for. */
  async function turn<T>(run: () => Promise<T>): Promise<T> {
    turns++
    let failed = true
    try {
      const value = await run()
      failed = false
      return value
    } finally {
      turns--
      if (!failed && finished && !over && turns === 0 && fetches.size === 0 && bridge.pending === 0)
        settle({ why: 'exited', exit: 0, reason: null })
    }
  }
  const wake: Wake = async (...args) =>
    await turn(async () => await deliver.apply(undefined, args as never[], { timeout: step.timeoutMs }))
  const later: Wake = async (...args) => {
    if (!over) await wake(...args).catch(fail)
  }

  const bridge = openBridge(
    {
      print: step.io.print,
      get congested() {
        return step.io.congested
      },
      fetch(id, ...request) {
        fetches.add(id)
        step.io.fetch(id, ...request)
      },
      unfetch(id) {
        fetches.delete(id)
        step.io.unfetch(id)
      },
      wake: (id) => void later('timer', id, ''),
      exit: (code) => settle({ why: 'exited', exit: code, reason: null }),
      done() {
        finished = true
      },
      exhausted: () => settle({ why: 'callback_quota' }),
    },
    step.outputs,
    step.limits,
  )
  step.answers((id, header, body) => {
    if (!fetches.delete(id)) return
    if (header === '') void later('failed', id, 'the request was not answered')
    else void later('answer', id, header, copyIn(body))
  })

  turn(async () => await start(isolate, context, fixed, step, wake)).catch(fail)
  return {
    bridge,
    end,
    read(path) {
      if (over || typeof path !== 'string' || path.length > 4096) return undefined
      const bytes = path.startsWith('/out/')
        ? step.outputs.get(outputName(path) ?? '')
        : step.files.get(posix.normalize(`/${path}`).slice(1))
      return bytes === undefined ? undefined : copyIn(bytes)
    },
    async wait() {
      // After `exit` or a spent quota the guest never comes back: not one more line of it runs.
      if (over) await new Promise<never>(() => undefined)
      await step.room()
    },
  }
}

async function start(
  isolate: ivm.Isolate,
  context: ivm.Context,
  fixed: Fixed,
  step: GuestStep,
  wake: Wake,
): Promise<void> {
  await wake('begin', 0, JSON.stringify(step.begin))
  const entryText = sourceOf(step.files, step.entry)
  const compiled = await compileEntry(isolate, step.entry, entryText)
  if (compiled.kind === 'script') {
    const main = await compiled.script.run(context, { reference: true, timeout: step.timeoutMs })
    await wake('main', 0, '', main.derefInto({ release: true }))
    return
  }
  const paths = new Map<ivm.Module, string>([[compiled.module, step.entry]])
  const modules = new Map<string, Promise<ivm.Module>>([[step.entry, Promise.resolve(compiled.module)]])
  const load = async (name: string, text: () => string): Promise<ivm.Module> => {
    const known = modules.get(name) ?? isolate.compileModule(text(), { filename: name })
    modules.set(name, known)
    const module = await known
    paths.set(module, name)
    return module
  }
  const { root } = fixed
  let refused: ProjectError | null = null
  try {
    await root.instantiate(context, async (specifier, referrer) => {
      if (referrer === root) return specifier === 'writ:done' ? fixed.done : compiled.module
      if (specifier === 'writ') return await load('writ:api', () => writText)
      const from = paths.get(referrer) ?? ''
      const path = resolvePath(step.files, from, specifier)
      if (path === null) throw (refused ??= refuseImport(from, specifier))
      return await load(path, () => sourceOf(step.files, path))
    })
  } catch (error) {
    throw refused ?? error
  }
  await root.evaluate({ timeout: step.timeoutMs })
}

type Entry =
  | { readonly kind: 'module'; readonly module: ivm.Module }
  | { readonly kind: 'script'; readonly script: ivm.Script }

/** At the beginning of a line. It goes over no line end, so that a text of empty lines costs no more than its length. */
const moduleWord = /^[^\S\r\n\u2028\u2029]*(?:import|export)\b/m

/** A lone script may return from its top level or be sloppy; what is no module is taken as the body of a function. */
async function compileEntry(isolate: ivm.Isolate, filename: string, text: string): Promise<Entry> {
  try {
    return { kind: 'module', module: await isolate.compileModule(text, { filename }) }
  } catch (error) {
    if (isolate.isDisposed || moduleWord.test(text)) throw error
    const open = '(async function () { '
    const script = await isolate
      .compileScript(`${open}${text.replace(/^#!.*/, '')}\n})`, { filename, columnOffset: -open.length })
      .catch((): null => null)
    if (script === null) throw error
    return { kind: 'script', script }
  }
}

function copyIn(bytes: Uint8Array): unknown {
  const own = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer
  return new ivm.ExternalCopy(own, { transferOut: false }).copyInto({ release: true })
}

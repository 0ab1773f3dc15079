import { Secret } from '../credential/secret.ts'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import { parentStream } from '../execution/child.ts'
import { checkToHost, cut, maxHeader, maxPayload, readSettings } from '../execution/host-wire.ts'
import type { FromHost, ToHost, WireOutcome } from '../execution/host-wire.ts'
import type { Dispatch, Outcome, RunEnd } from '../execution/job.ts'
import { openPipe } from '../execution/pipe.ts'
import type { TestReport } from '../execution/report/report.ts'
import type { ExecutionId } from '../id.ts'
import type { Generation } from '../policy/policy.ts'
import type { Engine } from '../policy/engine.ts'
import type { Executor } from './executor.ts'
import { openExecutors } from './executors.ts'
import { notStarted, runJob } from './run.ts'

/*
 * The run host process: executors, gateways and redaction, for the broker at the other end of the pipe and for nobody
 * else. It holds the leased values of live runs, no key and no ledger handle. When the broker is gone, so is it, and
 * before it everything it started.
 */

const settings = readSettings(process.argv[2] ?? '')
const executors = await openExecutors(settings)
const runs = new Map<ExecutionId, AbortController>()
/** Every execution this process was ever given: none is taken twice. */
const taken = new Set<ExecutionId>()
const generations = new Map<Digest, Generation>()
const engines = new Map<Digest, Promise<Engine>>()
const answers = new Map<
  number,
  { readonly resolve: (bytes: Buffer) => void; readonly reject: (error: WritError) => void }
>()
let last = 0

const pipe = openPipe<ToHost, FromHost>(parentStream(), { check: checkToHost, maxHeader, maxPayload, take })

void pipe.closed.then(async () => {
  for (const run of runs.values()) run.abort('cancel')
  const late = setTimeout(() => process.exit(1), 1500)
  await Promise.all([...executors.values()].map((executor) => executor.close()))
  clearTimeout(late)
  process.exit(0)
})
process.setUncaughtExceptionCaptureCallback((error) => {
  // The message may quote a value; the kind of error and where it came from may not.
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  process.stderr.write(`${error.name}\n${frames.slice(0, 10).join('\n')}\n`, () => process.exit(70))
})
// A terminal's signals are the broker's business.
for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM'] as const) process.on(signal, () => undefined)

function take(header: ToHost, payload: Buffer): void {
  switch (header.t) {
    case 'generation':
      return keepGeneration(header, payload)
    case 'dispatch':
      return begin(header, payload)
    case 'bytes':
    case 'stored': {
      const answer = answers.get(header.id)
      answers.delete(header.id)
      if (header.ok) answer?.resolve(Buffer.from(payload))
      else
        answer?.reject(
          new WritError(header.t === 'bytes' ? 'ledger_corrupt' : 'no_space', 'the broker could not do what was asked'),
        )
      return
    }
    case 'cancel':
      runs.get(header.execution)?.abort('cancel')
      void pipe.send({ t: 'heard', execution: header.execution })
      return
    case 'check':
      void check(header.id, header.images)
      return
    case 'unpack':
      void unpack(header.id, Buffer.from(payload))
      return
  }
}

function keepGeneration(header: ToHost & { t: 'generation' }, payload: Buffer): void {
  const modules = cut(
    payload,
    header.packs.map((pack) => pack.size),
  )
  if (modules === null) throw new WritError('internal', 'sizes that do not add up')
  const packs = header.packs.map(({ pack, layer, kind, digest, rules }, at) => ({
    pack,
    layer,
    kind,
    digest,
    rules,
    module: Buffer.from(modules[at] ?? ''),
  }))
  generations.set(header.digest, { number: header.number, digest: header.digest, packs })
}

/** One engine per generation that a live run was decided by, and the latest; others end when their last run does. */
async function engineOf(digest: Digest): Promise<Engine> {
  const known = engines.get(digest)
  if (known !== undefined) return await known
  const generation = generations.get(digest)
  if (generation === undefined) throw new WritError('policy_unavailable', 'the run has no policy to ask')
  const opening = import('../policy/engine.ts').then(async ({ openEngine }) => {
    const engine = openEngine({ threads: settings.threads })
    await engine.load(generation)
    return engine
  })
  engines.set(digest, opening)
  opening.catch(() => engines.delete(digest))
  return await opening
}

const runsOf = new Map<Digest, number>()
function release(digest: Digest): void {
  const left = (runsOf.get(digest) ?? 1) - 1
  runsOf.set(digest, left)
  const latest = [...generations.keys()].at(-1)
  for (const [known, engine] of engines) {
    if (known === latest || (runsOf.get(known) ?? 0) > 0) continue
    engines.delete(known)
    void engine.then((own) => own.close()).catch(() => undefined)
  }
}

function begin(header: ToHost & { t: 'dispatch' }, payload: Buffer): void {
  const { job, egress_input } = header
  const { execution, plan } = job
  const values = cut(
    payload,
    header.secrets.map((secret) => secret.size),
  )
  const generation = generations.get(header.generation)
  if (taken.has(execution)) return refuse(execution)
  if (values === null || generation === undefined) throw new WritError('internal', 'a dispatch that does not fit')
  taken.add(execution)
  const secrets = header.secrets.map(({ name }, at) => Secret.ingest(name, values[at] ?? ''))
  payload.fill(0)
  const dispatch: Dispatch = { job, secrets, generation, egress_input }
  const controller = new AbortController()
  runs.set(execution, controller)
  runsOf.set(generation.digest, (runsOf.get(generation.digest) ?? 0) + 1)
  // What the first request will ask is made ready beside the sandbox.
  if (plan.services.length > 0) void engineOf(generation.digest).catch(() => undefined)
  void runJob(
    dispatch,
    executors.get(plan.executor),
    {
      read: (digest) => request((id) => ({ t: 'read', execution, id, digest })),
      async started(step) {
        if (!(await pipe.send({ t: 'started', execution, step })))
          throw new WritError('run_host_lost', 'the broker is gone')
      },
      output: (step, stream, bytes) => void pipe.send({ t: 'output', execution, step, stream }, bytes),
      async file(path, bytes) {
        await request((id) => ({ t: 'file', execution, id, path }), bytes)
      },
      decide: async (input) => await (await engineOf(generation.digest)).decide(input),
    },
    controller.signal,
  ).then(({ outcome, counts, tests }) => {
    runs.delete(execution)
    release(generation.digest)
    return pipe.send({
      t: 'ended',
      execution,
      outcome: wire(outcome),
      counts: wireCounts(counts),
      tests: wireTests(tests ?? null),
    })
  })
}

/** A permit is spent once; the same execution a second time is a mistake of the broker's and runs nothing. */
function refuse(execution: ExecutionId): void {
  const error = new WritError('conflict', 'this execution was run already')
  const { outcome, counts } = notStarted(error)
  void pipe.send({ t: 'ended', execution, outcome: wire(outcome), counts: wireCounts(counts), tests: null })
}

async function request(question: (id: number) => FromHost, payload?: Uint8Array): Promise<Buffer> {
  const id = ++last
  const answer = new Promise<Buffer>((resolve, reject) => answers.set(id, { resolve, reject }))
  if (!(await pipe.send(question(id), payload))) throw new WritError('run_host_lost', 'the broker is gone')
  return await answer
}

async function check(id: number, images: readonly string[]): Promise<void> {
  const results = await Promise.all(
    [...executors.values()].map(async (executor) => ({
      executor: executor.kind,
      findings: [...(await executor.check())],
      facts: await factsOf(executor, images),
    })),
  )
  await pipe.send({ t: 'checked', id, results })
}

/** Archives are foreign bytes: they are read here, never in the broker. */
async function unpack(id: number, bytes: Buffer): Promise<void> {
  try {
    const { unpackArchive } = await import('../artifact/archive.ts')
    const entries = await unpackArchive(bytes)
    const heads = entries.map((entry) => ({ path: entry.path, size: entry.bytes.length, executable: entry.executable }))
    await pipe.send({ t: 'unpacked', id, entries: heads }, Buffer.concat(entries.map((entry) => entry.bytes)))
  } catch (error) {
    const known = error instanceof WritError ? error : new WritError('invalid_archive', 'the archive cannot be read')
    await pipe.send({ t: 'failed', id, code: known.code, message: known.message.slice(0, 2000) })
  }
}

function wireCounts(counts: RunEnd['counts']): (FromHost & { t: 'ended' })['counts'] {
  return { ...counts, egress: { ...counts.egress, refusals: [...counts.egress.refusals] } }
}

function wireTests(tests: TestReport | null): (FromHost & { t: 'ended' })['tests'] {
  return tests === null ? null : { ...tests, failures: [...tests.failures] }
}

function wire(outcome: Outcome): WireOutcome {
  switch (outcome.end) {
    case 'not_started':
      return { end: 'not_started', code: outcome.error.code, message: outcome.error.message.slice(0, 2000) }
    case 'exited':
      return { end: 'exited', steps: [...outcome.steps], reason: outcome.reason }
    case 'stopped':
      return { end: 'stopped', by: outcome.by, steps: [...outcome.steps] }
    case 'unknown':
      return { end: 'unknown', steps: [...outcome.steps] }
  }
}

type WireFacts = (FromHost & { t: 'checked' })['results'][number]['facts']

/** What cannot be learned is not there. */
async function factsOf(executor: Executor, images: readonly string[]): Promise<WireFacts> {
  const facts = await executor.facts?.(images).catch(() => null)
  return facts === null || facts === undefined
    ? null
    : { images: [...facts.images.values()], runtimes: [...facts.runtimes] }
}

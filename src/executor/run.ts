import type { Redactor } from '../credential/redact.ts'
import { digestOf } from '../digest.ts'
import type { Digest } from '../digest.ts'
import type { EgressCounts, EgressPort } from '../egress/egress.ts'
import type { Gateway } from '../egress/gateway.ts'
import { WritError } from '../error.ts'
import { nothingCounted } from '../execution/job.ts'
import type { Dispatch, Outcome, RunEnd } from '../execution/job.ts'
import { openReports } from '../execution/report/reports.ts'
import { inSlices } from '../execution/report/slices.ts'
import type { Work } from '../execution/report/slices.ts'
import { frozenTime } from '../policy/input.ts'
import type { Decision, PolicyInput } from '../policy/policy.ts'
import type { Executor } from './executor.ts'
import { openArtifacts, openOutput } from './sinks.ts'

type Call = NonNullable<PolicyInput['context']['call']>

/** What a run needs of the run host. */
export interface RunPorts {
  /** The bytes the broker has for a digest of the plan; rejects where it has none. */
  read(digest: Digest): Promise<Uint8Array>
  /** Resolves once the broker knows; rejects where it cannot be told. */
  started(step: number): Promise<void>
  output(step: number, stream: 'stdout' | 'stderr', bytes: Uint8Array): void
  /** Resolves once the broker has stored it; rejects where it could not. */
  file(path: string, bytes: Uint8Array): Promise<void>
  /** Phase `egress` of the generation the run was decided by. Rejects where it cannot be asked, which counts as no. */
  decide(input: PolicyInput): Promise<Decision>
}

/**
 * One run, from dispatch to end: redactor and gateway before anything starts, the deadline, the executor, what it
 * printed and left, and what of that is a report on tests. Never rejects. `signal` is aborted with `cancel`.
 */
export async function runJob(
  dispatch: Dispatch,
  executor: Executor | undefined,
  ports: RunPorts,
  signal: AbortSignal,
): Promise<RunEnd> {
  const { job } = dispatch
  const { limits } = job.plan
  if (executor === undefined)
    return notStarted(new WritError('target_unavailable', 'this kind of sandbox is not available'))
  const redactor = await redactorOf(dispatch)
  const egress = openEgress(dispatch, redactor, ports)
  const reports = openReports((text) => cleaned(redactor, text))
  const output = openOutput(redactor, limits.output_kb * 1024, (step, stream, bytes) => {
    ports.output(step, stream, bytes)
    if (stream === 'stdout') reports.printed(step, bytes)
  })
  let lostFile = false
  const artifacts = openArtifacts(redactor, limits.artifact_kb * 1024, async (path, bytes) => {
    await inSlices(reports.file(path, bytes))
    await ports.file(path, bytes).catch(() => {
      lostFile = true
    })
  })
  const stop = new AbortController()
  const cancel = (): void => stop.abort('cancel')
  if (signal.aborted) cancel()
  signal.addEventListener('abort', cancel)
  const deadline = setTimeout(() => stop.abort('time'), limits.wall_s * 1000)
  let told = false
  let isolation = executor.isolation
  try {
    const outcome = await executor
      .run(job, {
        files: { read: async (digest) => await readChecked(ports, digest) },
        output,
        artifacts,
        egress: egress.port,
        signal: stop.signal,
        async started(step) {
          if (step > 0) output.flush()
          await ports.started(step)
          told = true
        },
        applied(seen) {
          isolation = seen
        },
      })
      .catch((error: unknown): Outcome => {
        if (told) return { end: 'unknown', steps: [] }
        return {
          end: 'not_started',
          error: error instanceof WritError ? error : new WritError('internal', 'the run could not be started'),
        }
      })
    output.flush()
    return {
      outcome: told ? (lostFile ? withoutFiles(outcome) : outcome) : beforeItBegan(outcome),
      counts: {
        egress: egress.counts(),
        isolation_applied: isolation,
        withheld_files: artifacts.withheld,
        redactions: output.redactions + artifacts.redactions,
        dropped_bytes: output.dropped,
      },
      tests: reports.report(),
    }
  } finally {
    clearTimeout(deadline)
    signal.removeEventListener('abort', cancel)
    await egress.close()
  }
}

/** The end of a run of which nothing happened. */
export function notStarted(error: WritError): RunEnd {
  return {
    outcome: { end: 'not_started', error },
    counts: nothingCounted,
  }
}

/** What ended before anything was handed to a sandbox did not use up its time: it was the sandbox that was not ready. */
function beforeItBegan(outcome: Outcome): Outcome {
  if (outcome.end !== 'stopped' || outcome.by === 'cancel') return outcome
  return {
    end: 'not_started',
    error: new WritError('target_unavailable', 'the sandbox was not ready within the time of the run'),
  }
}

/** A run whose files could not be kept has not succeeded, whatever its steps say: its last exit is withdrawn. */
function withoutFiles(outcome: Outcome): Outcome {
  if (outcome.end !== 'exited') return outcome
  const last = outcome.steps.length - 1
  return {
    ...outcome,
    reason: 'no_space',
    steps: outcome.steps.map((step, at) => (at === last ? { ...step, exit: null } : step)),
  }
}

/** Artifact bytes are hashed again where they are handed over: what was approved is what runs. */
async function readChecked(ports: RunPorts, digest: Digest): Promise<Uint8Array> {
  const bytes = await ports.read(digest)
  if (digestOf(bytes) !== digest)
    throw new WritError('ledger_corrupt', 'a file of the plan is not the one that was decided on')
  return bytes
}

async function redactorOf(dispatch: Dispatch): Promise<Redactor | null> {
  if (dispatch.secrets.length === 0 && dispatch.job.plan.services.length === 0) return null
  const { createRedactor } = await import('../credential/redact.ts')
  return createRedactor(dispatch.secrets.map((secret) => ({ name: secret.name, value: secret, placeholder: null })))
}

const sliceBytes = 262_144

/** A text of a report without secrets, as what prints it would be. */
function* cleaned(redactor: Redactor | null, text: string): Work<string> {
  if (redactor === null) return text
  const bytes = Buffer.from(text)
  const stream = redactor.stream()
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; at += sliceBytes) {
    parts.push(stream.write(bytes.subarray(at, at + sliceBytes)))
    yield
  }
  parts.push(stream.flush())
  return Buffer.concat(parts).toString('utf8')
}

interface Egress {
  readonly port: EgressPort
  counts(): EgressCounts
  close(): Promise<void>
}

/** The gateway, loaded at the first request: most runs make none. */
function openEgress(dispatch: Dispatch, redactor: Redactor | null, ports: RunPorts): Egress {
  let gateway: Promise<Gateway> | null = null
  let opened: Gateway | null = null
  const open = async (): Promise<Gateway> => {
    const { openGateway } = await import('../egress/gateway.ts')
    const own = redactor ?? (await import('../credential/redact.ts')).createRedactor([])
    opened = openGateway({
      plan: dispatch.job.plan,
      placeholders: dispatch.job.placeholders,
      secrets: dispatch.secrets,
      redactor: own,
      decide: async (call) => await ports.decide(inputFor(dispatch.egress_input, call)),
    })
    return opened
  }
  return {
    port: {
      async fetch(request, signal) {
        return await (await (gateway ??= open())).fetch(request, signal)
      },
    },
    counts: () => opened?.counts() ?? nothingCounted.egress,
    async close() {
      await gateway?.then((own) => own.close())
    },
  }
}

/** The input the run was decided on, at the time of the call: what it says of people, counters and approvals is of the start. */
function inputFor(envelope: PolicyInput, call: Call): PolicyInput {
  return { ...envelope, phase: 'egress', context: { ...envelope.context, call, time: frozenTime(Date.now()) } }
}

import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { openConnections } from '../src/executor/docker/egress.ts'
import type { Connections } from '../src/executor/docker/egress.ts'
import type { AgentFrame, HostFrame } from '../src/executor/docker/frame.ts'
import { channels } from '../src/executor/docker/frame.ts'
import { openWire } from '../src/executor/docker/wire.ts'
import { jobOf } from '../test/executor/docker/agent.ts'
import { agentImage, containerOf } from '../test/executor/docker/container.ts'
import { engine } from '../test/servers/engine.ts'
import type { Engine } from '../test/servers/engine.ts'
import type { PlanImage } from '../src/plan/plan.ts'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'

const rounds = 5
const small = 200
const large = 24
const program = join(import.meta.dirname, 'frames', 'client.pl')

/** Microseconds of one small request, and megabytes a second. */
interface Measured {
  readonly micros: number
  readonly mbps: number
}

const bodies = { small: Buffer.alloc(100, 'x'), large: Buffer.alloc(1_048_576, 'x') }

function answer(url: string): Buffer {
  return url.endsWith('/large') ? bodies.large : bodies.small
}

/**
 * The same client and the same answers three ways, in turns: out of a container through the agent's frames and the code
 * that reads them, out of that container through a unix socket mounted into it, and on the host over loopback.
 */
export async function run(): Promise<readonly Figure[]> {
  const found = await engine()
  if ('lacking' in found)
    return [{ name: 'egress through frames', figure: 'not measured', goal: '', reached: false, detail: found.lacking }]
  const image = await agentImage(found, 'base:bookworm')
  try {
    const figures = [...(await compare(found, image, null))]
    if (found.runtimes.has('runsc')) figures.push(...(await compare(found, image, 'runsc')))
    return figures
  } finally {
    await image.remove()
  }
}

async function compare(found: Engine, image: PlanImage, runtime: string | null): Promise<readonly Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'writ-bench-'))
  chmodSync(folder, 0o755)
  const socket = join(folder, 'service.sock')
  const [unix, tcp] = [await listen(socket), await listen(0)]
  chmodSync(socket, 0o777)
  const container = await containerOf(found, image, runtime, [`${folder}:/mounted:ro`])
  try {
    const talk = await openTalk(container, 2 * rounds)
    const seen = { frames: [] as Measured[], unix: [] as Measured[], direct: [] as Measured[] }
    const port = String((tcp.address() as AddressInfo).port)
    for (let round = 0; round < rounds; round++) {
      seen.frames.push(await talk.step())
      seen.unix.push(await talk.step())
      const { stdout } = await promisify(execFile)('perl', [program, `127.0.0.1:${port}`, String(small), String(large)])
      seen.direct.push(measured(stdout))
    }
    return figuresOf(runtime ?? 'the default runtime', seen)
  } finally {
    await container.remove()
    unix.close()
    tcp.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

function figuresOf(
  name: string,
  seen: { readonly frames: Measured[]; readonly unix: Measured[]; readonly direct: Measured[] },
): readonly Figure[] {
  const middle = (of: readonly Measured[], what: keyof Measured): number =>
    quantile(
      of.map((one) => one[what]),
      0.5,
    )
  const one = (what: keyof Measured): readonly [number, number, number] => [
    middle(seen.frames, what),
    middle(seen.unix, what),
    middle(seen.direct, what),
  ]
  const [frames, unix, direct] = one('micros')
  const [framesMb, unixMb, directMb] = one('mbps')
  return [
    {
      name: `time of a small request through frames, under ${name}, against a mounted unix socket`,
      figure: `${(frames / unix).toFixed(2)}x`,
      goal: '8x',
      reached: frames / unix <= 8,
      detail: `${frames.toFixed(0)} µs through frames, ${unix.toFixed(0)} µs through the socket, ${direct.toFixed(0)} µs direct on the host (${(frames / direct).toFixed(2)}x); medians of ${String(rounds)} rounds of ${String(small)}`,
    },
    {
      name: `throughput of frames, under ${name}, against a mounted unix socket`,
      figure: `${(framesMb / unixMb).toFixed(2)}x`,
      goal: '0.05x',
      reached: framesMb / unixMb >= 0.05,
      detail: `${framesMb.toFixed(0)} MB/s through frames, ${unixMb.toFixed(0)} MB/s through the socket, ${directMb.toFixed(0)} MB/s direct on the host (${(framesMb / directMb).toFixed(2)}x); answers of 1 MiB, ${String(large)} a round`,
    },
  ]
}

function measured(text: string): Measured {
  const [micros, mbps] = text.trim().split(' ').map(Number)
  if (micros === undefined || mbps === undefined || !(micros > 0 && mbps > 0))
    throw new Error(`the client said "${text}"`)
  return { micros, mbps }
}

async function listen(at: string | number): Promise<Server> {
  const server = createServer((request, response) => {
    const body = answer(request.url ?? '')
    response.writeHead(200, { 'content-length': body.length }).end(body)
  })
  await new Promise<void>((done) => {
    if (typeof at === 'string') server.listen(at, done)
    else server.listen(at, '127.0.0.1', done)
  })
  return server
}

/** The client as steps of one job, by turns through frames and through the socket; what each printed. */
async function openTalk(
  container: Awaited<ReturnType<typeof containerOf>>,
  steps: number,
): Promise<{ step(): Promise<Measured> }> {
  let printed = ''
  let number = 0
  let wake = Promise.withResolvers<AgentFrame>()
  const send = (frame: HostFrame): void => {
    const bytes = wire.encode(frame)
    if (bytes !== null) container.stream.write(bytes)
  }
  const connections: Connections = openConnections(
    { fetch: (request) => Promise.resolve({ status: 200, headers: [], body: answer(request.url) }) },
    {
      data: (connection, bytes) => send({ type: 'egress_data', connection, bytes }),
      end: (connection) => send({ type: 'egress_end', connection }),
      reset: (connection) => send({ type: 'egress_reset', connection }),
      window: (connection, bytes) => send({ type: 'window', channel: connection, bytes }),
      room: (connection) => wire.room(connection),
    },
  )
  const take = (frame: AgentFrame): void => {
    switch (frame.type) {
      case 'stdout':
      case 'stderr':
        printed += Buffer.from(frame.bytes).toString('utf8')
        return send({ type: 'window', channel: channels[frame.type], bytes: frame.bytes.length })
      case 'egress_open':
        return connections.open(frame.connection)
      case 'egress_data':
        return connections.data(frame.connection, frame.bytes)
      case 'egress_end':
        return connections.end(frame.connection)
      case 'egress_reset':
        return connections.reset(frame.connection)
      case 'window':
        return connections.raised(frame.connection)
      case 'ready':
      case 'prepared':
      case 'exited':
      case 'failed':
      case 'archive':
      case 'archive_end':
      case 'done':
        return wake.resolve(frame)
    }
  }
  const wire = openWire(take)
  const heard = async (type: AgentFrame['type']): Promise<void> => {
    const frame = await wake.promise
    wake = Promise.withResolvers<AgentFrame>()
    if (frame.type !== type) throw new Error(`the agent said ${frame.type} in place of ${type}`)
  }
  await container.start((bytes) => wire.take(bytes))
  await heard('ready')
  const script = readFileSync(program, 'utf8')
  const client = (to: string): string => `perl /work/client.pl ${to} ${String(small)} ${String(large)}`
  const scripts = Array.from({ length: steps }, (_, at) =>
    at % 2 === 0 ? client('127.0.0.1:3128') : client('/mounted/service.sock'),
  )
  const job = jobOf(['cat > /work/client.pl', ...scripts], { stdin: script, egress: true })
  send({ type: 'job', job: { ...job, limits: { ...job.limits, cpu_s: 600, wall_s: 600 } } })
  send({ type: 'files_end' })
  await heard('prepared')
  const step = async (): Promise<Measured> => {
    printed = ''
    number++
    send({ type: 'step', step: number })
    await heard('exited')
    return number === 1 ? { micros: 0, mbps: 0 } : measured(printed)
  }
  await step()
  return { step }
}

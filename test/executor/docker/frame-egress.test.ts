import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { TestContext } from 'vitest'
import { windowBytes } from '../../../src/executor/docker/frame.ts'
import { until } from '../../wait.ts'
import { agentInNamespaces, jobOf, namespacesMissing, prepare, run } from './agent.ts'
import type { Agent } from './agent.ts'

/** The number of the first connection of an agent. */
const first = 16

let missing: string | null
const started: Agent[] = []

beforeAll(() => {
  missing = namespacesMissing()
})

afterEach(async () => {
  for (const agent of started.splice(0)) await agent.stop()
})

/** Perl that has `$s` connected to the agent, then does what is given. */
function client(does: string): string {
  return `perl -MIO::Socket::INET -MSocket -e 'sub c { IO::Socket::INET->new(PeerAddr => "127.0.0.1:3128") } my $s = c() or do { print "refused\\n"; exit 3 }; $s->autoflush(1); ${does}'`
}

async function start(context: TestContext, scripts: readonly string[], egress = true): Promise<Agent> {
  if (missing !== null) context.skip(missing)
  const agent = await agentInNamespaces()
  started.push(agent)
  await prepare(agent, jobOf(scripts, { egress }))
  return agent
}

function received(agent: Agent, connection: number): string {
  return Buffer.concat(
    agent.frames.flatMap((frame) =>
      frame.type === 'egress_data' && frame.connection === connection ? [frame.bytes] : [],
    ),
  ).toString('latin1')
}

describe('the listener of a step', () => {
  it('is not there unless the job says so, nor between steps', async (context) => {
    const closed = await start(context, [client('print "connected\\n"')], false)
    expect((await run(closed, 1)).exit).toBe(3)
    expect(closed.text('stdout')).toBe('refused\n')
    const open = await start(context, [client('print "connected\\n"'), client('print "again\\n"')])
    expect((await run(open, 1)).exit).toBe(0)
    expect((await run(open, 2)).exit).toBe(0)
    expect(open.text('stdout')).toBe('connected\nagain\n')
    expect(open.frames.flatMap((frame) => (frame.type === 'egress_open' ? [frame.connection] : []))).toEqual([
      first,
      first + 1,
    ])
  })

  it('carries bytes both ways and each end by itself', async (context) => {
    const agent = await start(context, [
      client(
        'print $s "ask\\0\\xff"; shutdown($s, 1); local $/; my $got = <$s>; print length($got), " ", substr($got, -3)',
      ),
    ])
    agent.send({ type: 'step', step: 1 })
    const { connection } = await agent.next('egress_open')
    await agent.next('egress_end')
    expect(received(agent, connection)).toBe('ask\0\xff')
    // More than one window, so that it is raised on the way.
    for (let left = 1_000_000; left > 0;) {
      const bytes = Buffer.alloc(Math.min(left, 50_000, agent.room(connection)), 'x')
      if (bytes.length > 0) agent.send({ type: 'egress_data', connection, bytes })
      else await pause(1)
      left -= bytes.length
    }
    agent.send({ type: 'egress_end', connection })
    expect((await agent.next('exited')).exit).toBe(0)
    expect(agent.text('stdout')).toBe('1000000 xxx')
    expect(agent.breach).toBeNull()
  })

  it('closes at once what the host resets', async (context) => {
    const agent = await start(context, [client('my $n = sysread($s, my $b, 10); print defined $n ? "end" : "reset"')])
    agent.send({ type: 'step', step: 1 })
    const { connection } = await agent.next('egress_open')
    agent.send({ type: 'egress_reset', connection })
    await agent.next('exited')
    expect(agent.text('stdout')).toBe('reset')
    expect(agent.frames.filter(({ type }) => type === 'egress_reset')).toEqual([])
  })

  it('stops reading a connection whose window nobody raises', async (context) => {
    const agent = await start(context, [client('print $s "x" x 2_000_000; print "sent\\n"; sysread($s, my $b, 1)')])
    agent.flow.on = false
    agent.send({ type: 'step', step: 1 })
    const { connection } = await agent.next('egress_open')
    await until('a window has come', () => received(agent, connection).length >= windowBytes)
    await pause(50)
    expect(received(agent, connection).length).toBe(windowBytes)
    agent.flow.on = true
    agent.send({ type: 'window', channel: connection, bytes: 2_000_000 })
    await until('the rest has come', () => received(agent, connection).length >= 2_000_000)
    expect(received(agent, connection).length).toBe(2_000_000)
    agent.send({ type: 'egress_reset', connection })
    await agent.next('exited')
  })

  it('has sixty-four connections at once and takes the rest when one is over', async (context) => {
    const agent = await start(context, [
      client(
        'my @all = map { c() } 1..99; print "made ", scalar(grep { defined } @all), "\\n"; $| = 1; sysread(STDIN, my $b, 1); close($s); sleep 1000',
      ),
    ])
    agent.send({ type: 'step', step: 1 })
    const opened = (): number => agent.frames.filter(({ type }) => type === 'egress_open').length
    await until('64 are open', () => opened() >= 64)
    await pause(100)
    expect(opened()).toBe(64)
    expect(agent.memory()).toBeLessThan(16 * 1024)
    agent.send({ type: 'egress_reset', connection: 20 })
    await until('one more is open', () => opened() >= 65)
    // The second that is closed by the step itself ends its own direction only; the host has to end its too.
    await agent.next('egress_end')
    agent.send({ type: 'egress_end', connection: first })
    await until('another is open', () => opened() >= 66)
    expect(opened()).toBe(66)
    agent.send({ type: 'stop' })
    expect((await agent.ended).code).toBe(0)
  })

  it('passes no connection from one step to the next: what is open is reset, what waits is dropped', async (context) => {
    const agent = await start(context, [
      client('my @all = map { c() } 1..80; print $_ "of step 1" for @all; sysread($s, my $b, 1); kill 9, $$'),
      client('print $s "of step 2"; sysread($s, my $b, 1)'),
    ])
    const opened = (): readonly number[] =>
      agent.frames.flatMap((frame) => (frame.type === 'egress_open' ? [frame.connection] : []))
    // Each step goes on when it hears a byte.
    const goOn = (connection: number): void => agent.send({ type: 'egress_data', connection, bytes: Buffer.from('!') })
    agent.send({ type: 'step', step: 1 })
    await until('64 are open', () => opened().length >= 64)
    goOn(first)
    const killed = await agent.next('exited')
    expect(killed.signal ?? killed.exit).toBeGreaterThan(0)
    const end = agent.frames.findIndex(({ type }) => type === 'exited')
    expect(opened()).toHaveLength(64)
    agent.send({ type: 'step', step: 2 })
    const last = await until('step 2 has connected', () => opened()[64])
    await until('step 2 has spoken', () => received(agent, last) !== '')
    goOn(last)
    await agent.next('exited')
    const after = agent.frames
      .slice(end + 1)
      .flatMap((frame) => (frame.type === 'egress_data' ? [frame.bytes.toString()] : []))
    expect(after).toEqual(['of step 2'])
    expect(opened()).toHaveLength(65)
    expect(agent.breach).toBeNull()
  })

  it('takes no more of the host than a window, and nothing after its end', async (context) => {
    const silent = client('sleep 1000')
    const data = (bytes: number): Buffer => {
      const frame = Buffer.alloc(9 + bytes)
      frame.writeUInt32BE(5 + bytes, 0)
      frame.writeUInt8(0x06, 4)
      frame.writeUInt32BE(first, 5)
      return frame
    }
    const over = await start(context, [silent])
    over.send({ type: 'step', step: 1 })
    await over.next('egress_open')
    // The kernel's buffers take some of it; what the step does not read stays with the agent. Where the window is raised
    // after all, a byte too many is one as soon as that is used up.
    let idle = 0
    await until(
      'a byte too many ends it',
      () => {
        idle = over.room(first) === 0 ? idle + 1 : 0
        for (let room = over.room(first); room > 0; room = over.room(first))
          over.send({ type: 'egress_data', connection: first, bytes: Buffer.alloc(Math.min(room, 65_536)) })
        if (idle >= 20) over.raw(data(1))
        return over.frames.some(({ type }) => type === 'failed')
      },
      { everyMs: 10 },
    )
    expect(await over.next('failed')).toMatchObject({ code: 'bad_frame' })
    const late = await start(context, [silent])
    late.send({ type: 'step', step: 1 })
    const { connection } = await late.next('egress_open')
    late.send({ type: 'egress_end', connection })
    late.raw(data(1))
    expect(await late.next('failed')).toMatchObject({ code: 'bad_frame' })
    expect((await late.ended).code).toBe(70)
    expect(late.others()).toEqual([])
  })
})

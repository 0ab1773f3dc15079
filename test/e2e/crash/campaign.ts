import { rmSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { askBroker } from '../../../src/control/control.ts'
import type { JsonObject } from '../../../src/digest.ts'
import { WritError } from '../../../src/error.ts'
import { type Effects, openEffects } from './effects.ts'
import { type Acknowledged, breaches, viewsAreTheSteps } from './invariants.ts'
import { type Line, openLine, Unanswered } from './line.ts'
import { makePlace, type Place } from './place.ts'
import {
  below,
  familyNow,
  gone,
  groupPrefix,
  leftovers,
  orphansGone,
  ownerOf,
  sandboxesGone,
  until,
} from './leftovers.ts'
import { type Family, groupsOf, kill, type Process } from './processes.ts'
import { isolates, type Sandbox } from './sandbox.ts'

/** Where on the path the kill falls: while the named thing is being done, or just after. */
export const moments = [
  'submit',
  'start',
  'ask',
  'approve',
  'queued',
  'running',
  'service',
  'outcome',
  'recover',
] as const
export type Moment = (typeof moments)[number]
export const victims = ['broker', 'run host', 'worker', 'broker and run host'] as const
export type Victim = (typeof victims)[number]

export interface Report {
  readonly seed: number
  /** Processes killed, by `moment, victim`; a victim that was gone already is not counted. */
  readonly kills: Readonly<Record<string, number>>
  readonly total: number
  /** How the executions of the campaign ended. */
  readonly ends: Readonly<Record<string, number>>
  /** Calls whose broker went before it answered. */
  readonly unanswered: number
  readonly receipts: number
  readonly breaches: readonly string[]
  readonly seconds: number
}

function target(name: string, env: string, port: number, sandbox: readonly string[]): string {
  return `
  ${name}:
    about: A target with a service that remembers
    labels: { env: ${env} }
    ${sandbox.join('\n    ')}
    intents: [run_script]
    services:
      effects: { url: "http://127.0.0.1:${String(port)}", about: Remembers lines, credential: effects-token, addresses: ["127.0.0.1/32"] }
    environment:
      EFFECTS: { service: effects }
      TOKEN: { placeholder: effects-token }
`
}

/** Numbers from a seed (mulberry32): a campaign can be walked again. */
function dice(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = state
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

const wholeLookEvery = 25
const settleMs = 30_000

/**
 * Kills parts of one Writ at random moments of the path, brings it back with the next call as any client would, and
 * looks each time whether all that was acknowledged is there, nothing ran twice and nothing is left behind.
 */
export async function campaign(options: {
  readonly seed: number
  readonly kills: number
  readonly withinMs?: number
  /** Goes on past `kills` until something was hit at every moment, and every kind of victim: chance may leave one out. */
  readonly everywhere?: boolean
  /** Isolates unless told. */
  readonly sandbox?: Sandbox
  readonly say?: (text: string) => void
}): Promise<Report> {
  const begun = performance.now()
  const random = dice(options.seed)
  const token = `crash-token-${options.seed}-0123456789abcdef`
  const effects = await openEffects(token)
  const sandbox = options.sandbox ?? isolates
  const place = makePlace({
    name: 'writ-crash-',
    config: sandbox.config,
    targets: sandbox.targets
      .map(
        (lines, at) =>
          target(`effects-${String(at)}`, 'staging', effects.port, lines) +
          target(`guarded-${String(at)}`, 'production', effects.port, lines),
      )
      .join(''),
    credentials: '  effects-token:\n    source: { file: effects-token }\n    inject: { bearer: true }',
    secrets: { 'effects-token': token },
  })
  const line = openLine(place)
  const told: Acknowledged = { tasks: new Map(), executions: new Map(), verdicts: new Map() }
  const kills: Record<string, number> = {}
  const found: string[] = []
  let total = 0
  let unanswered = 0
  let rounds = 0
  let whole = false

  const world: World = {
    place,
    effects,
    line,
    told,
    random,
    sandbox,
    lost: () => unanswered++,
    family: null,
    dead: [],
    orphans: [],
  }
  const strike = async (moment: Moment, victim: Victim): Promise<void> => {
    const family = familyNow(place)
    if (family === null) return
    const living = await sandbox.living(ownerOf(place) ?? '')
    const key = `${moment}, ${victim}`
    if (victim === 'worker' && living.length > 0) {
      const hit = await Promise.all(living.map(async (id) => await sandbox.kill(id)))
      // One that is being made cannot be killed yet: it is what waits next, and stays.
      const killed = living.filter((_, at) => hit[at])
      if (killed.length === 0) return
      world.orphans.push(...killed)
      total++
      kills[key] = (kills[key] ?? 0) + 1
      return
    }
    const hit = victimsOf(family, victim).filter((one) => kill(one))
    if (hit.length === 0) return
    world.orphans.push(...living)
    world.dead.push(
      ...hit,
      ...(hit.includes(family.broker)
        ? [family.broker, ...below(family)]
        : hit.includes(family.host as Process)
          ? below(family)
          : []),
    )
    total += hit.length
    kills[key] = (kills[key] ?? 0) + 1
  }

  try {
    // The first call starts the first broker.
    await world.line.call('list_targets', {})
    const prefix = groupPrefix(place)
    const left = (): boolean =>
      total < options.kills || (options.everywhere === true && rounds < 4 * options.kills && !everywhere(kills))
    while (left() && performance.now() - begun < (options.withinMs ?? Number.POSITIVE_INFINITY) && found.length === 0) {
      const moment = moments[rounds % moments.length] ?? 'submit'
      const victim =
        victims[Math.floor(random() * 10)] ?? (random() < 0.5 ? 'broker' : random() < 0.6 ? 'run host' : 'worker')
      rounds++
      world.dead = []
      world.orphans = []
      const from = performance.now()
      const tasks = await walk(world, moment, () => strike(moment, victim), rounds)
      const walked = performance.now()
      for (const breach of [
        ...breaches(place, told, effects, tasks),
        ...(await leftovers(place, world.dead, prefix)),
        ...(await orphansGone(place, sandbox, world.orphans)),
      ])
        found.push(`round ${rounds} (${moment}, ${victim}): ${breach}`)
      if (rounds % wholeLookEvery === 0) found.push(...wholeLook(world))
      options.say?.(
        `${String(total)} ${moment}, ${victim}: ${(walked - from).toFixed(0)} ms, and ${(performance.now() - walked).toFixed(0)} ms looking`,
      )
    }
    found.push(...wholeLook(world))
    const receipts = (await askBroker(place.folder.controlSocket, 'status')).receipts
    // A run host that is still coming up is not waited for when a broker stops; what it leaves is the next one's to sweep.
    await until(() => ((familyNow(place)?.workers.length ?? 0) > 0 ? true : null), 5000)
    const last = familyNow(place)
    await askBroker(place.folder.controlSocket, 'stop')
    if (last !== null) found.push(...(await gone([last.broker, ...below(last)])))
    found.push(...(await sandboxesGone(sandbox, prefix.split('-')[1] ?? '')))
    const groups = await until(() => (groupsOf(prefix).length === 0 ? [] : null), 3000)
    if (groups === null) found.push(`control groups are left after the stop: ${groupsOf(prefix).join(' ')}`)
    whole = found.length === 0
    return {
      seed: options.seed,
      kills,
      total,
      ends: countEnds(told),
      unanswered,
      receipts,
      breaches: found,
      seconds: Math.round((performance.now() - begun) / 1000),
    }
  } finally {
    line.close()
    await effects.close()
    const rest = familyNow(place)
    if (rest !== null) for (const one of [rest.broker, ...below(rest)]) kill(one)
    if (whole) rmSync(place.root, { recursive: true, force: true })
    else options.say?.(`the folder is kept: ${place.root}`)
  }
}

function everywhere(kills: Readonly<Record<string, number>>): boolean {
  const hit = Object.keys(kills)
  return (
    moments.every((moment) => hit.some((key) => key.startsWith(`${moment}, `))) &&
    victims.every((victim) => hit.some((key) => key.endsWith(`, ${victim}`)))
  )
}

interface World {
  readonly place: Place
  readonly sandbox: Sandbox
  readonly effects: Effects
  readonly line: Line
  readonly told: Acknowledged
  readonly random: () => number
  lost(): void
  family: Family | null
  /** Processes that were killed in this round, and those that lived by them. */
  dead: Process[]
  /** Containers that lost their run host in this round, or were killed. */
  orphans: string[]
}

function victimsOf(family: Family, victim: Victim): readonly Process[] {
  const host = family.host === null ? [] : [family.host]
  switch (victim) {
    case 'broker':
      return [family.broker]
    case 'run host':
      return host
    case 'worker':
      return family.workers
    case 'broker and run host':
      return [family.broker, ...host]
  }
}

function wholeLook(world: World): readonly string[] {
  const verified = world.place.writ(['verify'])
  return [
    ...(verified.code === 0 && verified.out.startsWith('VALID:LOGGED')
      ? []
      : [`writ verify: ${verified.out}${verified.err}`]),
    ...(viewsAreTheSteps(world.place.folder.ledger) ? [] : ['the views are not what the steps make of them']),
    ...breaches(world.place, world.told, world.effects, null),
  ]
}

function countEnds(told: Acknowledged): Readonly<Record<string, number>> {
  const ends: Record<string, number> = {}
  for (const state of told.executions.values()) ends[state] = (ends[state] ?? 0) + 1
  return ends
}

/** A task of one round, with what makes its calls repeatable. */
interface Job {
  readonly mark: string
  readonly target: string
  readonly script: { readonly path: string; readonly content: string }
  task: string | null
  execution: string | null
  approval: string | null
}

let marks = 0

function job(world: World, name: 'effects' | 'guarded', kind: 'call' | 'slow' = 'call'): Job {
  const mark = `line-${String(++marks)}-${Math.floor(world.random() * 1e9).toString(36)}`
  const target = `${name}-${String(marks % world.sandbox.targets.length)}`
  const script = world.sandbox.script(mark, kind === 'slow')
  return { mark, target, script, task: null, execution: null, approval: null }
}

/** One call: what it says is remembered; null where the broker went before it answered. */
async function ask(world: World, tool: string, args: JsonObject): Promise<JsonObject | null> {
  try {
    const answer = await world.line.call(tool, args)
    // A machine too busy for policy's deadline is told no; the call may be repeated like one that was not answered.
    if ((answer['error'] as JsonObject | undefined)?.['code'] === 'deadline') return null
    const { execution_id, state } = answer as { readonly execution_id?: string; readonly state?: string }
    if (execution_id !== undefined && state !== undefined && tool !== 'respond_to_approval')
      world.told.executions.set(execution_id, state)
    return answer
  } catch (failure) {
    if (!(failure instanceof Unanswered)) throw failure
    world.lost()
    return null
  }
}

async function submit(world: World, one: Job): Promise<void> {
  const answer = await ask(world, 'submit_task', {
    project_name: 'crash',
    goal: 'Write one line',
    target_ref: one.target,
    execution_intent: 'run_script',
    inputs: { script: one.script.path },
    files: [one.script],
    idempotency_key: `submit-${one.mark}`,
  })
  const task = answer?.['task_id']
  if (typeof task !== 'string') return
  if (one.task !== null && one.task !== task) throw new Error(`the same submit made ${one.task} and ${task}`)
  one.task = task
  world.told.tasks.set(task, one.mark)
}

async function start(world: World, one: Job): Promise<void> {
  if (one.task === null) return
  const answer = await ask(world, 'start_execution', { task_id: one.task, idempotency_key: `start-${one.mark}` })
  const execution = answer?.['execution_id']
  if (typeof execution !== 'string') return
  if (one.execution !== null && one.execution !== execution)
    throw new Error(`the same start made ${one.execution} and ${execution}`)
  one.execution = execution
  const approval = (answer?.['approval'] as JsonObject | undefined)?.['approval_id']
  if (typeof approval === 'string') one.approval = approval
}

async function approve(world: World, one: Job, verdict: 'approve' | 'reject'): Promise<void> {
  if (one.approval === null) return
  try {
    await world.place.answer(one.approval, verdict)
    world.told.verdicts.set(one.approval, verdict)
  } catch (failure) {
    if (
      !(failure instanceof WritError) ||
      (failure.code !== 'broker_unreachable' && failure.code !== 'approval_refused')
    )
      throw failure
    world.lost()
  }
}

/** Does `work` and kills `ms` after it was begun; resolves when both are done. */
async function during(work: Promise<unknown>, ms: number, strike: () => Promise<void>): Promise<void> {
  await Promise.all([work, pause(ms).then(strike)])
}

/** A call that finds the connection broken is repeated, and that one starts a broker. */
async function revive(world: World): Promise<void> {
  for (let tries = 0; tries < 3; tries++) if ((await ask(world, 'get_status', {})) !== null) return
}

/** One round: walks to the moment, kills, and brings everything to its end with the calls any client would make. */
async function walk(
  world: World,
  moment: Moment,
  strike: () => Promise<void>,
  round: number,
): Promise<readonly string[]> {
  const { random, effects } = world
  const guarded = moment === 'ask' || moment === 'approve' || random() < 0.2
  const one = job(world, guarded ? 'guarded' : 'effects', moment === 'running' ? 'slow' : 'call')
  const jobs = [one]
  const verdict = round % 5 === 0 ? 'reject' : 'approve'
  const go = async (which: Job = one): Promise<void> => {
    await submit(world, which)
    await start(world, which)
    await approve(world, which, 'approve')
  }
  switch (moment) {
    case 'submit':
      await during(submit(world, one), random() * 12, strike)
      break
    case 'start':
    case 'ask':
      await submit(world, one)
      await during(start(world, one), random() * 25, strike)
      break
    case 'approve':
      await submit(world, one)
      await start(world, one)
      await during(approve(world, one, verdict), random() * 30, strike)
      break
    case 'queued': {
      // Four runs are held by the service, so that a fifth waits.
      const holders = Array.from({ length: 4 }, () => job(world, 'effects'))
      const arrived = Promise.all(holders.map(async (holder) => await effects.hold(holder.mark)))
      for (const holder of holders) await go(holder)
      await Promise.race([arrived, pause(5000)])
      jobs.push(...holders)
      await go()
      await pause(random() * 10)
      await strike()
      for (const holder of holders) effects.release(holder.mark)
      break
    }
    case 'running':
      await go()
      await pause(random() * 250)
      await strike()
      break
    case 'service': {
      const arrived = effects.hold(one.mark)
      await go()
      await Promise.race([arrived, pause(5000)])
      await pause(random() * 5)
      await strike()
      effects.release(one.mark)
      break
    }
    case 'outcome': {
      const arrived = effects.hold(one.mark)
      await go()
      await Promise.race([arrived, pause(5000)])
      effects.release(one.mark)
      await pause(random() * 40)
      await strike()
      break
    }
    case 'recover': {
      // Killed in the middle of a run, and again while the next broker recovers it.
      const arrived = effects.hold(one.mark)
      await go()
      await Promise.race([arrived, pause(5000)])
      const family = familyNow(world.place)
      if (family !== null && kill(family.broker)) world.dead.push(family.broker, ...below(family))
      effects.release(one.mark)
      await during(revive(world), 150 + random() * 500, strike)
      break
    }
  }
  for (const each of jobs) await finish(world, each, each === one ? verdict : 'approve')
  return jobs.map((each) => each.task).filter((task) => task !== null)
}

/** Repeats, with the same keys, what was not answered, until the execution is final. */
async function finish(world: World, one: Job, verdict: 'approve' | 'reject'): Promise<void> {
  const end = performance.now() + settleMs
  while (one.task === null) {
    await submit(world, one)
    if (performance.now() > end) throw new Error('a task could not be submitted')
  }
  while (one.execution === null) {
    await start(world, one)
    if (performance.now() > end) throw new Error(`${one.task} could not be started`)
  }
  for (let wait_ms = 0; ; wait_ms = 3000) {
    const status = await ask(world, 'get_status', { execution_id: one.execution, wait_ms })
    if (status?.['final'] === true) break
    const approval = (status?.['approval'] as JsonObject | undefined)?.['approval_id']
    if (status?.['state'] === 'awaiting_approval' && typeof approval === 'string') {
      one.approval = approval
      await approve(world, one, verdict)
    }
    if (performance.now() > end)
      throw new Error(`${one.execution} is ${String(status?.['state'])} and does not end: ${JSON.stringify(status)}`)
  }
  for (;;) {
    const result = await ask(world, 'get_result', { execution_id: one.execution })
    if (result?.['receipt'] !== undefined) return
    if (result !== null) throw new Error(`${one.execution} has a result without a receipt: ${JSON.stringify(result)}`)
    if (performance.now() > end) throw new Error(`the result of ${one.execution} cannot be had`)
  }
}

import { readFileSync } from 'node:fs'
import { askBroker } from '../control/control.ts'
import { systemCode, WritError } from '../error.ts'
import { type Context, folderFor, no, yes } from './context.ts'
import { aheadText, show } from './print.ts'

export async function status(context: Context): Promise<number> {
  const { folder, config } = folderFor(context)
  const answer = await askBroker(folder.controlSocket, 'status').catch((failure: unknown) => {
    if (failure instanceof WritError && failure.code === 'broker_unreachable') return null
    throw failure
  })
  if (answer === null) {
    show(
      context,
      { broker: false, configuration: config.path },
      () => `No broker runs for ${config.path}; the first client starts one.`,
    )
    return no
  }
  const { policy, configuration } = answer
  show(context, { broker: true, ...answer }, () =>
    [
      `Broker ${answer.version}, pid ${String(answer.pid)}, since ${answer.started}`,
      `  executions   ${String(answer.running)} running, ${String(answer.queued)} queued, ${String(answer.awaiting_approval)} awaiting approval`,
      `  connections  ${String(answer.connections)}`,
      `  receipts     ${String(answer.receipts)}`,
      `  policy       ${policy.generation === null ? 'NONE IN FORCE: everything is denied' : `generation ${String(policy.generation.number)} ${policy.generation.digest}`}`,
      ...policy.packs.map((pack) => `               ${pack.pack} (${pack.layer}, ${pack.kind})`),
      ...policy.refused.map(
        (finding) => `               REFUSED ${finding.file}:${String(finding.line)} ${finding.message}`,
      ),
      ...(configuration.ok ? [] : [`  configuration REFUSED ${configuration.problem}`]),
      ...(answer.ahead_s === undefined
        ? []
        : [`  CLOCK        ${aheadText(answer.ahead_s)}: what has a time may be over at once`]),
      ...(answer.room === 'ok' ? [] : ['  DISK         low: no new execution begins until there is room']),
    ].join('\n'),
  )
  return policy.generation === null || policy.refused.length > 0 || !configuration.ok ? no : yes
}

export async function stopBroker(context: Context): Promise<number> {
  const { folder } = folderFor(context)
  let pid: number
  try {
    pid = (await askBroker(folder.controlSocket, 'stop')).pid
  } catch (failure) {
    if (failure instanceof WritError && failure.code === 'broker_unreachable') {
      show(context, { stopped: false }, () => 'No broker runs.')
      return no
    }
    throw failure
  }
  // Its sockets close before its runs have ended: only the end of the process is the end.
  for (const until = performance.now() + stopMs; performance.now() < until;) {
    if (isGone(pid)) {
      show(context, { stopped: true }, () => 'The broker has stopped.')
      return yes
    }
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new WritError('broker_running', 'The broker was told to stop and is still ending its runs.', {
    remedy: `Wait for process ${String(pid)} to end; what it runs is recorded before it does.`,
  })
}

/** Milliseconds. The engine of a container that does not end is asked for a while. */
const stopMs = 60_000

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // Where whoever started it has not asked for its end yet, it is gone all the same.
    return /^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'))
  } catch (failure) {
    return systemCode(failure) === 'ESRCH' || (systemCode(failure) === 'ENOENT' && process.platform === 'linux')
  }
}

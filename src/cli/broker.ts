import { askBroker, type Given } from '../control/control.ts'
import type { Answered, Method } from '../control/protocol.ts'
import { WritError } from '../error.ts'
import { connectOrStart } from '../start.ts'
import { type Context, folderFor } from './context.ts'

/** How long a broker that answers clients may take to answer the command line as well. */
const tries = 40
const pauseMs = 50

/** Asks the broker, which is started where none runs: a person who approves after a reboot needs no client to do it. */
export async function askStarted<M extends Method>(
  context: Context,
  method: M,
  ...asked: Given<M>
): Promise<Answered<M>> {
  const { config, folder } = folderFor(context)
  try {
    return await askBroker(folder.controlSocket, method, ...asked)
  } catch (failure) {
    if (!isUnreachable(failure)) throw failure
  }
  const client = await connectOrStart({
    configFile: config.path,
    socket: folder.mcpSocket,
    logFile: folder.log,
    env: { ...context.env },
  })
  try {
    for (let left = tries; ; left--) {
      try {
        return await askBroker(folder.controlSocket, method, ...asked)
      } catch (failure) {
        if (!isUnreachable(failure) || left === 0) throw failure
        await new Promise((resolve) => setTimeout(resolve, pauseMs))
      }
    }
  } finally {
    client.destroy()
  }
}

function isUnreachable(failure: unknown): boolean {
  return failure instanceof WritError && failure.code === 'broker_unreachable'
}

import { chmod, lstat, mkdir, unlink } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Broker } from '../broker.ts'
import { systemCode, WritError } from '../error.ts'
import type { Caller } from '../request/caller.ts'
import { serveMcp } from './server.ts'
import type { Connection } from './server.ts'
import type { Log } from './refusal.ts'

/** Bytes a unix socket's path may have where it may have least (`sun_path` of macOS: 104, one of them the final NUL). */
const pathMax = 103
/** Connections at once; each costs a few hundred KiB. More are closed as they come. */
const connectionsMax = 256

export interface Listener {
  /** Open connections. */
  connections(): number
  /** Requests not answered yet, over all connections. */
  inFlight(): number
  close(): Promise<void>
}

/** Whether a socket may lie at this path; where not, main puts it in a short private folder elsewhere. */
export function isSocketPath(path: string): boolean {
  return Buffer.byteLength(path) <= pathMax
}

/**
 * Serves MCP on a unix socket: 0600, in a folder that is 0700 and ours, so that who can open it is the local subject.
 * Call it only while holding the lock of the data folder: a socket file found at `path` is then a dead broker's and is
 * replaced. Rejects `invalid_config` where the folder is open to others or the path is not a socket's.
 */
export async function listenMcp(options: {
  readonly path: string
  readonly broker: Broker
  /** Asked for each message, so that a role taken away in the configuration counts no longer for the next one. */
  readonly callerOf: (socket: Socket) => Caller
  readonly log: Log
  /** Called whenever a connection came or went: the clock of an idle broker. */
  readonly changed?: () => void
}): Promise<Listener> {
  const { path, log } = options
  if (!isSocketPath(path)) throw new WritError('invalid_config', `the path of a socket has at most ${pathMax} bytes`)
  await privateFolder(dirname(path))
  await removeStale(path)

  const open = new Map<Socket, Connection>()
  const server = createServer((socket) => {
    if (open.size >= connectionsMax) {
      log.warn({ connections: open.size }, 'too many MCP connections; one was closed')
      socket.destroy()
      return
    }
    const sinceMs = Date.now()
    const caller = (): Caller => {
      const now = options.callerOf(socket)
      return { ...now, auth: { ...now.auth, atMs: sinceMs } }
    }
    const connection = serveMcp({ socket, caller, broker: options.broker, log })
    open.set(socket, connection)
    options.changed?.()
    void connection.closed.then(() => {
      open.delete(socket)
      options.changed?.()
    })
  })
  await listening(server, path)
  await chmod(path, 0o600)
  server.on('error', (error) => log.warn({ error: error.message }, 'the MCP socket reported an error'))
  return {
    connections: () => open.size,
    inFlight: () => [...open.values()].reduce((sum, connection) => sum + connection.inFlight, 0),
    close: async () => {
      const stopped = new Promise<void>((resolve) => server.close(() => resolve()))
      await Promise.all([...open.values()].map((connection) => connection.close()))
      await stopped
    },
  }
}

async function privateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const found = await lstat(folder)
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    throw new WritError(
      'invalid_config',
      'the folder of the socket must be a folder of your own that nobody else can open (mode 0700)',
    )
  }
}

async function removeStale(path: string): Promise<void> {
  try {
    const found = await lstat(path)
    if (!found.isSocket()) throw new WritError('invalid_config', 'where the socket should be lies something else')
    await unlink(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
  }
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

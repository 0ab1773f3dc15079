import { WritError } from '../../error.ts'
import { FrameBreach, channels, encodeFrame, readFrames, windowBytes } from './frame.ts'
import type { AgentFrame, AgentJob, HostFrame, Ready } from './frame.ts'

/** Connections an agent may have open at once. */
const maxConnections = 64

/** One agent's side of the conversation, from its first byte to its last, held to what may come when. */
export interface AgentWire {
  /** What `ready` said, or null before it came. */
  readonly ready: Ready | null
  /** Takes bytes of the agent; throws `FrameBreach` where a rule is broken, and from then on for every call. */
  take(chunk: Buffer): void
  /**
   * The bytes of a frame to be sent now. Rejects `internal` where the page does not let the host send it now, `too_large`
   * and `invalid_arguments` for a job that cannot be sent. Of a connection that is over, nothing is to be sent: null.
   */
  encode(frame: HostFrame): Buffer | null
  /** Bytes that may be sent to a connection now; 0 for one that is over. A frame `window` of it raises them. */
  room(connection: number): number
}

/**
 * `start`: nothing came. `waiting`: ready, no job. `files`: the job was sent. `preparing`: `files_end` was sent.
 * `between`: a step, or the collecting, may begin. `running`: a step runs. `collecting`, then `collected`: the archive
 * comes, then it came. `over`: nothing more comes.
 */
type Phase = 'start' | 'waiting' | 'files' | 'preparing' | 'between' | 'running' | 'collecting' | 'collected' | 'over'

interface Connection {
  /** Bytes the agent may still send, and the host. */
  incoming: number
  outgoing: number
  agentEnded: boolean
  hostEnded: boolean
}

/**
 * Begins a conversation; each frame that breaks no rule goes to `take`. Frames of a connection that is over crossed its
 * end on their way and are dropped.
 */
export function openWire(take: (frame: AgentFrame) => void): AgentWire {
  let phase: Phase = 'start'
  let ready: Ready | null = null
  let job: AgentJob | null = null
  let step = 0
  let last: number = channels.firstConnection - 1
  const connections = new Map<number, Connection>()
  const windows = new Map<number, number>([
    [channels.stdout, windowBytes],
    [channels.stderr, windowBytes],
    [channels.archive, windowBytes],
  ])

  const only = (...phases: readonly Phase[]): void => {
    if (!phases.includes(phase)) throw new FrameBreach('order')
  }
  const spend = (channel: number, bytes: Uint8Array): void => {
    const left = (windows.get(channel) ?? 0) - bytes.length
    if (left < 0) throw new FrameBreach('window')
    windows.set(channel, left)
  }
  /** The connection, or null where it is over; one that was never opened is a breach. */
  const opened = (number: number): Connection | null => {
    only('running')
    if (number > last) throw new FrameBreach('order')
    return connections.get(number) ?? null
  }
  const closeWhenEnded = (number: number, connection: Connection): void => {
    if (connection.agentEnded && connection.hostEnded) connections.delete(number)
  }

  /** False where the frame is to be dropped. */
  const accept = (frame: AgentFrame): boolean => {
    switch (frame.type) {
      case 'ready':
        only('start')
        phase = 'waiting'
        ready = frame
        return true
      case 'prepared':
        only('preparing')
        phase = 'between'
        return true
      case 'stdout':
      case 'stderr':
        only('running')
        spend(channels[frame.type], frame.bytes)
        return true
      case 'exited':
        only('running')
        // A step is over when everything of it is: its connections too.
        if (frame.step !== step || connections.size > 0) throw new FrameBreach('order')
        phase = 'between'
        return true
      case 'window': {
        const connection = opened(frame.connection)
        if (connection === null) return false
        if (frame.bytes === 0 || connection.outgoing + frame.bytes > windowBytes) throw new FrameBreach('window')
        connection.outgoing += frame.bytes
        return true
      }
      case 'egress_open':
        only('running')
        if (job?.egress !== true || frame.connection !== last + 1 || connections.size === maxConnections)
          throw new FrameBreach('order')
        last = frame.connection
        connections.set(last, {
          incoming: windowBytes,
          outgoing: windowBytes,
          agentEnded: false,
          hostEnded: false,
        })
        return true
      case 'egress_data': {
        const connection = opened(frame.connection)
        if (connection === null) return false
        if (connection.agentEnded) throw new FrameBreach('order')
        connection.incoming -= frame.bytes.length
        if (connection.incoming < 0) throw new FrameBreach('window')
        return true
      }
      case 'egress_end': {
        const connection = opened(frame.connection)
        if (connection === null) return false
        if (connection.agentEnded) throw new FrameBreach('order')
        connection.agentEnded = true
        closeWhenEnded(frame.connection, connection)
        return true
      }
      case 'egress_reset':
        if (opened(frame.connection) === null) return false
        connections.delete(frame.connection)
        return true
      case 'archive':
        only('collecting')
        spend(channels.archive, frame.bytes)
        return true
      case 'archive_end':
        only('collecting')
        phase = 'collected'
        return true
      case 'failed':
        if (phase === 'start' || phase === 'over') throw new FrameBreach('order')
        phase = 'over'
        return true
      case 'done':
        only('collected')
        phase = 'over'
        return true
    }
  }

  const send = (frame: HostFrame): boolean => {
    const now = (...phases: readonly Phase[]): void => {
      if (!phases.includes(phase)) throw new WritError('internal', `the agent cannot be sent ${frame.type} now`)
    }
    switch (frame.type) {
      case 'job':
        now('waiting')
        phase = 'files'
        job = frame.job
        return true
      case 'files':
        now('files')
        return true
      case 'files_end':
        now('files')
        phase = 'preparing'
        return true
      case 'step':
        now('between')
        if (frame.step !== step + 1 || frame.step > (job?.steps.length ?? 0))
          throw new WritError('internal', 'steps come in order, each once')
        step = frame.step
        phase = 'running'
        return true
      case 'collect':
        now('between')
        phase = 'collecting'
        return true
      case 'stop':
        return phase !== 'over'
      case 'window': {
        const connection = connections.get(frame.channel)
        if (connection !== undefined) {
          connection.incoming += frame.bytes
          return true
        }
        const left = windows.get(frame.channel)
        if (left === undefined || phase === 'over') return false
        windows.set(frame.channel, left + frame.bytes)
        return true
      }
      case 'egress_data': {
        const connection = connections.get(frame.connection)
        if (connection === undefined) return false
        if (connection.hostEnded || frame.bytes.length > connection.outgoing)
          throw new WritError('internal', 'more was sent to a connection than it has room for')
        connection.outgoing -= frame.bytes.length
        return true
      }
      case 'egress_end': {
        const connection = connections.get(frame.connection)
        if (connection === undefined || connection.hostEnded) return false
        connection.hostEnded = true
        closeWhenEnded(frame.connection, connection)
        return true
      }
      case 'egress_reset':
        return connections.delete(frame.connection)
    }
  }

  const decode = readFrames((frame) => {
    if (accept(frame)) take(frame)
  })
  let broken: FrameBreach | null = null
  return {
    get ready() {
      return ready
    },
    take(chunk) {
      if (broken !== null) throw broken
      // What the agent had under way when it said that it failed is not looked at any more.
      try {
        decode(chunk)
      } catch (error) {
        if (error instanceof FrameBreach) {
          broken = error
          phase = 'over'
        }
        throw error
      }
    },
    encode(frame) {
      // First the bytes: a job that cannot be sent was not sent.
      const bytes = encodeFrame(frame)
      return send(frame) ? bytes : null
    },
    room(number) {
      const connection = connections.get(number)
      return connection === undefined || connection.hostEnded ? 0 : connection.outgoing
    },
  }
}

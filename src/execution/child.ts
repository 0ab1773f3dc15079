import { spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { Duplex } from 'node:stream'

/** A process of Writ's own at the other end of a pipe. It inherits no descriptor but that one, on 3. */
export interface Child {
  readonly pid: number
  readonly stream: Duplex
  /** Resolves once the process is gone. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>
  /** The last 4 KiB it wrote to standard error: for the operator's log, never for a caller. */
  complaint(): string
  /** SIGKILL. */
  kill(): void
}

export interface ChildOptions {
  readonly command: string
  readonly args: readonly string[]
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
}

const pipeDescriptor = 3
const complaintBytes = 4096

/** A command under a shell that takes core files from it and becomes it, so that the pid stays; of the shell's own nothing is left. */
export function withoutCore(
  command: string,
  args: readonly string[],
): { readonly command: string; readonly args: readonly string[] } {
  return {
    command: '/bin/sh',
    args: ['-c', 'ulimit -c 0; unset PWD OLDPWD SHLVL; exec "$@"', 'writ', command, ...args],
  }
}

/** Null where the process could not be started at all. */
export function startChild(options: ChildOptions): Child | null {
  const child = spawn(options.command, options.args, {
    env: { ...options.env },
    cwd: options.cwd,
    // A group of its own: a signal meant for the broker's terminal must not end a run before the broker knows.
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  })
  let tail = Buffer.alloc(0)
  child.stderr?.on('data', (chunk: Buffer) => {
    tail = Buffer.concat([tail, chunk])
    if (tail.length > complaintBytes) tail = tail.subarray(-complaintBytes)
  })
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    child.once('error', () => {
      if (child.pid === undefined) resolve({ code: null, signal: null })
    })
  })
  const stream = child.stdio[pipeDescriptor]
  if (child.pid === undefined || !(stream instanceof Duplex)) return null
  return {
    pid: child.pid,
    stream,
    exited,
    complaint: () => tail.toString('utf8'),
    kill: () => void child.kill('SIGKILL'),
  }
}

/** The stream to the process that started this one. */
export function parentStream(): Duplex {
  return new Socket({ fd: pipeDescriptor })
}

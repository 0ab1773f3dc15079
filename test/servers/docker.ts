import { spawn } from 'node:child_process'
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { until } from '../wait.ts'
import { newerEngine, runsc } from './cache.ts'

/** A Docker Engine of a test's own: everything it writes lies in one folder, and nothing is left of it after `stop`. */
export interface Dockerd {
  /** `unix:///…/docker.sock`. */
  readonly host: string
  readonly folder: string
  readonly pid: number
  /** Ends the daemon at once, as a crash would; its containers live on, as they would. */
  kill(): void
  /** The daemon answers nothing until `resume`. */
  freeze(): void
  resume(): void
  /** Starts the daemon again over the same folder. */
  restart(): Promise<void>
  /** Stops the daemon and all it started, by pid, and removes the folder. */
  stop(): Promise<void>
}

const readyMs = 60_000
const programs = ['dockerd', 'containerd', 'runc'] as const

function onPath(program: string): boolean {
  return `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`.split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Why no Docker Engine can be started here, as a sentence for a skipped test; null where one can. */
export function dockerdMissing(newer = false): string | null {
  if (process.platform !== 'linux') return 'a Docker Engine of our own can be started on Linux only'
  if (process.getuid?.() !== 0) return 'a Docker Engine of our own can be started by root only: run the tests as root'
  const missing = programs.filter((program) => !onPath(program))
  if (missing.length > 0)
    return `${missing.join(', ')} missing: install docker.io, containerd and runc with the package manager of the system`
  return newer && newerEngine() === null ? 'the newer engine is not built: bash test/servers/docker.sh build' : null
}

/**
 * Starts an engine without networks, with runsc as a second runtime where it was built; resolves when it answers. The
 * newer one is what `docker.sh build` made: `docker.strict` takes it, as root of its containers is nobody on the machine.
 */
export async function startDockerd({ newer = false }: { readonly newer?: boolean } = {}): Promise<Dockerd> {
  const missing = dockerdMissing(newer)
  if (missing !== null) throw new Error(missing)
  const folder = mkdtempSync(join(tmpdir(), 'writ-docker-'))
  const socket = join(folder, 'docker.sock')
  const command = newer ? newerCommand(folder) : ['dockerd', ...argumentsFor(folder)]
  let child = await launch(folder, command)
  return {
    host: `unix://${socket}`,
    folder,
    get pid() {
      return child
    },
    kill: () => void process.kill(child, 'SIGKILL'),
    freeze: () => void process.kill(child, 'SIGSTOP'),
    resume: () => void process.kill(child, 'SIGCONT'),
    async restart() {
      await gone(child, 10_000)
      child = await launch(folder, command)
    },
    stop: async () => await stopDockerd(folder),
  }
}

async function launch(folder: string, [program = '', ...args]: readonly string[]): Promise<number> {
  const socket = join(folder, 'docker.sock')
  // Left by a daemon that was killed: the next one would refuse to start over them, or wait for a containerd that died with it.
  const containerd = readPid(join(folder, 'exec', 'containerd', 'containerd.pid'))
  if (containerd !== null) await gone(containerd, 5000)
  for (const name of ['pid', 'docker.sock', 'exec/containerd/containerd.pid'])
    rmSync(join(folder, name), { force: true })
  const log = openSync(join(folder, 'dockerd.log'), 'a', 0o600)
  const daemon = spawn(program, args, {
    cwd: folder,
    env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, HOME: folder },
    stdio: ['ignore', log, log],
    detached: true,
  })
  closeSync(log)
  daemon.unref()
  const ended = new Promise<void>((resolve) => daemon.once('exit', () => resolve()))
  const state = { over: false }
  void ended.then(() => (state.over = true))
  const pid = daemon.pid
  if (pid === undefined) throw new Error('dockerd could not be started')
  const ready = await until(
    'dockerd answers',
    async () => (state.over ? 'over' : (await answers(socket)) ? 'answers' : null),
    { withinMs: readyMs, everyMs: 50 },
  ).catch(() => 'late' as const)
  if (ready === 'answers') return pid
  const why = readFileSync(join(folder, 'dockerd.log'), 'utf8').trim().split('\n').slice(-3).join('\n')
  await stopDockerd(folder)
  throw new Error(`dockerd did not become ready:\n${why}`)
}

/**
 * Root of a container is user 231072 of the machine. Which users an engine may take stands in files of /etc: this one sees
 * its own there, and nobody else does.
 */
function newerCommand(folder: string): readonly string[] {
  const programs = newerEngine() ?? ''
  for (const name of ['subuid', 'subgid']) writeFileSync(join(folder, name), 'daemon:231072:65536\n')
  chmodSync(folder, 0o711)
  const enter =
    'for n in subuid subgid; do mount --bind "$1/$n" "/etc/$n" || exit 1; done; PATH="$2:$PATH"; shift 2; exec dockerd "$@"'
  const inNamespace = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', enter, 'sh', folder, programs]
  return [...inNamespace, ...argumentsFor(folder), '--userns-remap=daemon']
}

function argumentsFor(folder: string): readonly string[] {
  const program = runsc()
  const wrapper = join(folder, 'runsc')
  // Never --ignore-cgroups: the memory limit is not held then. Without --oci-seccomp the profile is passed over. KVM hangs on
  // machines that are virtual themselves.
  if (program !== null) {
    writeFileSync(
      wrapper,
      `#!/bin/sh\nexec ${program} --network=none --platform=systrap --host-uds=open --oci-seccomp "$@"\n`,
    )
    chmodSync(wrapper, 0o755)
  }
  return [
    `--data-root=${join(folder, 'data')}`,
    `--exec-root=${join(folder, 'exec')}`,
    `--pidfile=${join(folder, 'pid')}`,
    `--host=unix://${join(folder, 'docker.sock')}`,
    '--shutdown-timeout=3',
    '--exec-opt=native.cgroupdriver=cgroupfs',
    `--cgroup-parent=/${basename(folder)}`,
    '--bridge=none',
    '--iptables=false',
    '--ip6tables=false',
    '--ip-forward=false',
    '--ip-masq=false',
    ...(program === null ? [] : ['--add-runtime', `runsc=${wrapper}`]),
  ]
}

/** Whether an engine answers on that socket within a second. */
export async function answers(socket: string): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const asked = request({ socketPath: socket, path: '/_ping', timeout: 1000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    asked.on('timeout', () => asked.destroy())
    asked.on('error', () => resolve(false))
    asked.end()
  })
}

/** Ends the engine of a folder and everything it started, unmounts what it mounted, and removes the folder. */
export async function stopDockerd(folder: string): Promise<void> {
  const pid = readPid(join(folder, 'pid'))
  if (pid !== null && commandOf(pid).includes(folder)) {
    signal(pid, 'SIGCONT')
    signal(pid, 'SIGTERM')
    await gone(pid, 20_000)
  }
  // What a daemon that crashed has left: its containerd, the shims, and the containers below those.
  for (const hit of belonging(folder)) signal(hit, 'SIGKILL')
  for (const hit of belonging(folder)) await gone(hit, 5000)
  for (const mount of mountsUnder(folder)) await run('umount', ['-l', mount])
  for (const group of groupsOfEngine(folder)) removeGroup(group)
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
}

/** Processes that name the folder in their command line, with all below them. */
function belonging(folder: string): readonly number[] {
  const everyone = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => ({ pid: Number(name), parent: parentOf(Number(name)), command: commandOf(Number(name)) }))
  const daemons = /^(?:\S*\/)?(?:dockerd|containerd|containerd-shim\S*|docker-proxy|runc|runsc\S*|exe)\0/
  const found = new Set(
    everyone.filter(({ command }) => daemons.test(command) && command.includes(folder)).map(({ pid }) => pid),
  )
  for (let size = 0; size < found.size;) {
    size = found.size
    for (const { pid, parent } of everyone) if (found.has(parent)) found.add(pid)
  }
  return [...found]
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0
  }
}

function readPid(file: string): number | null {
  if (!existsSync(file)) return null
  const pid = Number(readFileSync(file, 'utf8').trim())
  return Number.isSafeInteger(pid) && pid > 1 ? pid : null
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended meanwhile.
  }
}

/** Resolves once a process is gone; one that is not by then is killed. */
async function gone(pid: number, withinMs: number): Promise<void> {
  const ended = (): boolean => {
    try {
      const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
      return stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
    } catch {
      return true
    }
  }
  await until('it is gone', ended, { withinMs, everyMs: 25 }).catch(() => signal(pid, 'SIGKILL'))
}

/** Where the control groups of an engine's containers are, one folder a hierarchy. */
export function groupsOfEngine(folder: string): readonly string[] {
  return ['', ...readdirSync('/sys/fs/cgroup')]
    .map((hierarchy) => join('/sys/fs/cgroup', hierarchy, basename(folder)))
    .filter((group) => existsSync(group))
}

function removeGroup(group: string): void {
  for (const entry of readdirSync(group, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroup(join(group, entry.name))
  try {
    rmdirSync(group)
  } catch {
    // Its last process is not quite gone; an empty group is swept with the machine.
  }
}

/** Deepest first, as they have to be unmounted. */
function mountsUnder(folder: string): readonly string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${folder}/`))
    .toReversed()
}

async function run(command: string, args: readonly string[]): Promise<void> {
  await new Promise<void>((resolve) => {
    const child = spawn(command, args, { stdio: 'ignore' })
    child.on('error', () => resolve())
    child.on('exit', () => resolve())
  })
}

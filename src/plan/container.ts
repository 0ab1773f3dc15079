import type { Digest, JsonObject } from '../digest.ts'
import type { Isolation, Limits, PlanImage } from './plan.ts'

/*
 * What a container is created with: a pure function of the plan, so that policy, approvers and receipts see exactly what
 * the engine is told, and the run host can refuse any other. What each member is for: docs/containers.md.
 */

/** The unprivileged user and group every container runs as. */
export const containerUser = 65_532
/** What the agent, and under gVisor the kernel in user space, take of a container's memory beside the workload. */
export const agentShareMb = 32
export const userKernelShareMb = 96
/** The sandbox's own threads count against the limit under gVisor: with 64, forty children failed. */
const pids = 256

/** Settings of a target that only containers have. */
export interface ContainerSettings {
  /** Name of the OCI runtime the engine is asked for (`runsc`, `kata` …), or null for its default. */
  readonly oci_runtime: string | null
  /** Processors, in thousandths. */
  readonly cpus_m: number
}

/** What isolation a runtime of that name gives; a name not known promises no more than a container. */
export function isolationOf(runtime: string | null): Isolation {
  if (runtime === null) return 'container'
  if (/^(?:runsc|gvisor)(?:$|[-_.])/.test(runtime)) return 'user-kernel'
  if (/^(?:kata|io\.containerd\.kata)(?:$|[-_.])/.test(runtime)) return 'vm'
  return 'container'
}

/** Megabytes of `/work`. What is written to a tmpfs counts against the memory, so that the folders together may not take all of it. */
export function workFolderMb(limits: Limits): number {
  return Math.max(8, Math.floor(limits.memory_mb / 2))
}

/**
 * The create body of Docker Engine API 1.41 without the two things that are the executor's own: the seccomp profile, which
 * stands here as its digest, and the label that says whose container it is.
 */
export function containerBody(of: {
  readonly image: PlanImage
  readonly limits: Limits
  readonly container: ContainerSettings
  readonly seccomp: Digest
}): JsonObject {
  const { image, limits, container, seccomp } = of
  const isolation = isolationOf(container.oci_runtime)
  const memory = (limits.memory_mb + (isolation === 'container' ? agentShareMb : userKernelShareMb)) * 1_048_576
  const half = workFolderMb(limits)
  const out = Math.max(1, Math.ceil(limits.artifact_kb / 1024)) + 1
  // More than any folder holds, so that a full folder says so and only files that are mostly holes are refused by this.
  const largestFile = (Math.max(half, out) + 1) * 1_048_576
  const owned = `uid=${containerUser},gid=${containerUser},mode=0700`
  return {
    Image: image.id,
    User: `${containerUser}:${containerUser}`,
    WorkingDir: '/work',
    Hostname: 'writ',
    Domainname: '',
    Entrypoint: ['/writ-agent'],
    Cmd: [],
    Env: [],
    Tty: false,
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    NetworkDisabled: true,
    Healthcheck: { Test: ['NONE'] },
    StopSignal: 'SIGKILL',
    HostConfig: {
      NetworkMode: 'none',
      Dns: ['127.0.0.1'],
      ReadonlyRootfs: true,
      Privileged: false,
      CapDrop: ['ALL'],
      CapAdd: [],
      SecurityOpt: ['no-new-privileges:true', `seccomp=${seccomp}`],
      PidsLimit: pids,
      Memory: memory,
      MemorySwap: memory,
      OomKillDisable: false,
      OomScoreAdj: 500,
      NanoCpus: container.cpus_m * 1_000_000,
      Ulimits: [
        { Name: 'nofile', Soft: 1024, Hard: 1024 },
        { Name: 'core', Soft: 0, Hard: 0 },
        { Name: 'fsize', Soft: largestFile, Hard: largestFile },
      ],
      Tmpfs: {
        '/work': `rw,exec,nosuid,nodev,${room(half)},${owned}`,
        '/tmp': `rw,noexec,nosuid,nodev,${room(Math.max(8, Math.floor(half / 2)))},mode=1777`,
        '/out': `rw,noexec,nosuid,nodev,${room(out)},${owned}`,
        '/dev/shm': `rw,noexec,nosuid,nodev,${room(8)},mode=1777`,
      },
      IpcMode: 'none',
      CgroupnsMode: 'private',
      PidMode: '',
      UTSMode: '',
      UsernsMode: '',
      Init: false,
      AutoRemove: false,
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'none', Config: {} },
      ...(container.oci_runtime === null ? {} : { Runtime: container.oci_runtime }),
    },
  }
}

/** A folder of so many megabytes. Empty files take about a kilobyte of the kernel's memory each, so they are bounded too. */
function room(megabytes: number): string {
  return `size=${megabytes}m,nr_inodes=${megabytes * 1024}`
}

import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { containerBody, isolationOf } from '../../src/plan/container.ts'
import { seccompDigest, seccompText } from '../../src/plan/seccomp.ts'

const image = {
  name: 'writ/python',
  id: `sha256:${'a'.repeat(64)}`,
  store: 'graphdriver',
  digest: null,
  arch: 'amd64',
  agent: digestOf('agent'),
} as const
const limits = { wall_s: 60, cpu_s: 30, memory_mb: 512, output_kb: 256, artifact_kb: 4096, egress_requests: 10 }
const seccomp = digestOf('profile')

describe('the body that a container is created with', () => {
  test('is this one, to the last member [G-container-body]', () => {
    expect(containerBody({ image, limits, container: { oci_runtime: null, cpus_m: 1500 }, seccomp })).toEqual({
      Image: image.id,
      User: '65532:65532',
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
        PidsLimit: 256,
        Memory: 544 * 1_048_576,
        MemorySwap: 544 * 1_048_576,
        OomKillDisable: false,
        OomScoreAdj: 500,
        NanoCpus: 1_500_000_000,
        Ulimits: [
          { Name: 'nofile', Soft: 1024, Hard: 1024 },
          { Name: 'core', Soft: 0, Hard: 0 },
          { Name: 'fsize', Soft: 257 * 1_048_576, Hard: 257 * 1_048_576 },
        ],
        Tmpfs: {
          '/work': 'rw,exec,nosuid,nodev,size=256m,nr_inodes=262144,uid=65532,gid=65532,mode=0700',
          '/tmp': 'rw,noexec,nosuid,nodev,size=128m,nr_inodes=131072,mode=1777',
          '/out': 'rw,noexec,nosuid,nodev,size=5m,nr_inodes=5120,uid=65532,gid=65532,mode=0700',
          '/dev/shm': 'rw,noexec,nosuid,nodev,size=8m,nr_inodes=8192,mode=1777',
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
      },
    })
  })

  test('names another runtime where the target does, and has room for its kernel', () => {
    const body = containerBody({ image, limits, container: { oci_runtime: 'runsc', cpus_m: 1000 }, seccomp })
    expect(body['HostConfig']).toMatchObject({ Runtime: 'runsc', Memory: 608 * 1_048_576, MemorySwap: 608 * 1_048_576 })
  })

  test('promises no isolation for a runtime whose name only looks like one', () => {
    expect(
      [null, 'runc', 'crun', 'runsc', 'runsc-kvm', 'gvisor', 'kata', 'io.containerd.kata.v2'].map(isolationOf),
    ).toEqual(['container', 'container', 'container', 'user-kernel', 'user-kernel', 'user-kernel', 'vm', 'vm'])
    for (const name of ['', 'runscx', 'not-runsc', 'katana', 'RUNSC', ' runsc', 'gvisorish'])
      expect([name, isolationOf(name)]).toEqual([name, 'container'])
  })
})

describe('the filter of system calls', () => {
  interface Rule {
    readonly names: readonly string[]
    readonly action: string
    readonly errnoRet?: number
    readonly args?: readonly { readonly index: number; readonly value: number; readonly op: string }[]
  }
  const profile = JSON.parse(seccompText) as {
    readonly defaultAction: string
    readonly archMap: readonly { readonly architecture: string; readonly subArchitectures: readonly string[] }[]
    readonly syscalls: readonly Rule[]
  }
  const free = new Set(
    profile.syscalls
      .filter(({ args, action }) => args === undefined && action === 'SCMP_ACT_ALLOW')
      .flatMap(({ names }) => names),
  )

  test('is named by its digest, refuses what it does not name, and knows no second architecture [G-container-syscalls]', () => {
    expect(seccompDigest).toBe(digestOf(seccompText))
    expect(profile.defaultAction).toBe('SCMP_ACT_ERRNO')
    expect(profile.archMap).toEqual([
      { architecture: 'SCMP_ARCH_X86_64', subArchitectures: [] },
      { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: [] },
    ])
  })

  test('lets no call through that makes kernels easier to attack', () => {
    const refused =
      `acct add_key bpf chroot clock_settime delete_module fanotify_init fanotify_mark finit_module fsconfig
      fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
      kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret modify_ldt mount mount_setattr move_mount
      name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pidfd_send_signal pivot_root process_madvise
      process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key set_mempolicy setdomainname
      sethostname setns settimeofday socketcall swapoff swapon syslog umount umount2 unshare userfaultfd uselib vhangup
      vmsplice socket socketpair clone clone3 personality`.split(/\s+/)
    expect(refused.filter((name) => free.has(name))).toEqual([])
  })

  test('takes three families of sockets, each in a rule of its own; rules are alternatives', () => {
    const sockets = profile.syscalls.filter(({ names }) => names.includes('socket'))
    expect(sockets.map(({ args }) => args)).toEqual([1, 2, 10].map((value) => [{ index: 0, value, op: 'SCMP_CMP_EQ' }]))
    expect(profile.syscalls.flatMap(({ args }) => args ?? []).filter(({ op }) => op === 'SCMP_CMP_NE')).toEqual([])
  })

  test('forks without namespaces, and sends clone3 back to clone', () => {
    const clone = profile.syscalls.find(({ names }) => names.includes('clone'))
    expect(clone?.args).toEqual([{ index: 0, value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }])
    const clone3 = profile.syscalls.find(({ names }) => names.includes('clone3'))
    expect(clone3).toEqual({ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 })
  })

  test('names each call once', () => {
    const [list] = profile.syscalls
    expect(list?.names).toEqual([...new Set(list?.names)])
  })
})

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { amicontained } from '../servers/cache.ts'
import { engine, newerEngine } from '../servers/engine.ts'
import { openPlace } from './docker/place.ts'

/*
 * D-22: what a program that nobody here wrote says of a container it is in, to the letter. It knows no system call that
 * is younger than 2018; D-02 and D-04 ask for those.
 */

const blocked = (text: string): string => text.trim().split(/\s+/).join(' ')

const linux = blocked(`
  SOCKET SOCKETPAIR MSGRCV PTRACE SYSLOG SETUID SETGID SETPGID SETSID SETREUID SETREGID SETGROUPS SETRESUID SETRESGID
  USELIB USTAT SYSFS VHANGUP MODIFY_LDT PIVOT_ROOT _SYSCTL ADJTIMEX CHROOT ACCT SETTIMEOFDAY MOUNT UMOUNT2 SWAPON
  SWAPOFF REBOOT SETHOSTNAME SETDOMAINNAME IOPL IOPERM CREATE_MODULE INIT_MODULE DELETE_MODULE GET_KERNEL_SYMS
  QUERY_MODULE QUOTACTL NFSSERVCTL GETPMSG PUTPMSG AFS_SYSCALL TUXCALL SECURITY SET_THREAD_AREA GET_THREAD_AREA
  LOOKUP_DCOOKIE EPOLL_CTL_OLD EPOLL_WAIT_OLD CLOCK_SETTIME VSERVER MBIND SET_MEMPOLICY GET_MEMPOLICY KEXEC_LOAD
  ADD_KEY REQUEST_KEY KEYCTL MIGRATE_PAGES FUTIMESAT UNSHARE VMSPLICE MOVE_PAGES UTIMENSAT PERF_EVENT_OPEN
  FANOTIFY_INIT FANOTIFY_MARK NAME_TO_HANDLE_AT OPEN_BY_HANDLE_AT CLOCK_ADJTIME SETNS PROCESS_VM_READV
  PROCESS_VM_WRITEV KCMP FINIT_MODULE KEXEC_FILE_LOAD BPF USERFAULTFD`)

const gvisor = blocked(`
  SOCKET SOCKETPAIR PTRACE SYSLOG SETUID SETGID SETSID SETREUID SETREGID SETGROUPS SETRESUID SETRESGID USELIB USTAT
  SYSFS SCHED_SETPARAM SCHED_RR_GET_INTERVAL VHANGUP MODIFY_LDT PIVOT_ROOT _SYSCTL ADJTIMEX CHROOT ACCT SETTIMEOFDAY
  MOUNT UMOUNT2 SWAPON SWAPOFF REBOOT SETHOSTNAME SETDOMAINNAME IOPL IOPERM CREATE_MODULE INIT_MODULE DELETE_MODULE
  GET_KERNEL_SYMS QUERY_MODULE QUOTACTL NFSSERVCTL GETPMSG PUTPMSG AFS_SYSCALL TUXCALL SECURITY SET_THREAD_AREA
  GET_THREAD_AREA LOOKUP_DCOOKIE EPOLL_CTL_OLD EPOLL_WAIT_OLD CLOCK_SETTIME VSERVER MBIND SET_MEMPOLICY GET_MEMPOLICY
  KEXEC_LOAD ADD_KEY REQUEST_KEY KEYCTL MIGRATE_PAGES UNSHARE VMSPLICE MOVE_PAGES PERF_EVENT_OPEN FANOTIFY_INIT
  FANOTIFY_MARK NAME_TO_HANDLE_AT OPEN_BY_HANDLE_AT CLOCK_ADJTIME SETNS PROCESS_VM_READV PROCESS_VM_WRITEV KCMP
  FINIT_MODULE KEXEC_FILE_LOAD BPF USERFAULTFD`)

const said = (users: readonly string[], calls: string): string =>
  [
    'Container Runtime: not-found',
    'Has Namespaces:',
    '\tpid: true',
    ...users,
    'AppArmor Profile: -',
    // None of any set.
    'Capabilities:',
    'Seccomp: filtering',
    `Blocked Syscalls (${String(calls.split(' ').length)}):`,
    `\t${calls}`,
    // None found.
    'Looking for Docker.sock',
    '',
  ].join('\n')

const none = ['\tuser: false']
const mapped = ['\tuser: true', 'User Namespace Mappings:', '\tContainer -> 0\tHost -> 231072\tRange -> 65536']

describe.each([
  { where: 'runc', runtime: null, strict: false, expected: said(none, linux) },
  { where: 'runsc', runtime: 'runsc', strict: false, expected: said(none, gvisor) },
  { where: 'runc, strict', runtime: null, strict: true, expected: said(mapped, linux) },
])('a container of $where', ({ runtime, strict, expected }) => {
  test('is what amicontained says, to the letter [G-container-holds]', { timeout: 90_000 }, async (ctx) => {
    const program = amicontained()
    if (program === null) return ctx.skip('amicontained is not built: bash test/servers/docker.sh build')
    const found = strict
      ? await newerEngine()
      : await engine({ images: ['writ/python:latest'], runsc: runtime !== null })
    if ('lacking' in found) return ctx.skip(found.lacking)
    const place = await openPlace(found, runtime, 'writ/python', `judged-${process.pid}`, { strict })
    try {
      const { end, stdout } = await place.run({
        files: { amicontained: readFileSync(program) },
        argv: [['sh', '-c', 'chmod 755 amicontained && exec ./amicontained']],
        limits: { memory_mb: 256 },
      })
      expect(end.outcome).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }] })
      // Which profile the engine adds, if any, is the machine's; none is asked for.
      expect(stdout.replace(/^AppArmor Profile: (?:unconfined|docker-default.*)$/m, 'AppArmor Profile: -')).toBe(
        expected,
      )
    } finally {
      await place.close()
    }
  })
})

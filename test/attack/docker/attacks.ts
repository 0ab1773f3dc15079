import { hostname, networkInterfaces, userInfo } from 'node:os'
import { expect } from 'vitest'
import type { Limits } from '../../../src/plan/plan.ts'
import type { Engine } from '../../servers/engine.ts'
import { literal } from '../../literal.ts'
import { neededCalls, runcCalls, runscCalls } from './golden.ts'
import type { Ran } from './place.ts'

/** Handed over beside the program that reads it. */
export const table = 'syscalls-x86_64.txt'

export interface Expected {
  readonly end: 'exited' | 'stopped'
  /** `by` of a stop, `reason` of an exit. */
  readonly why: string | null
  readonly exit: number | null
  /** To the byte, or what looks at it. */
  readonly stdout: string | ((text: string) => void)
  readonly outputs?: readonly string[]
}

export interface Attack {
  /** Arguments of each step; one step without any unless told. */
  readonly steps?: readonly (readonly string[])[]
  readonly limits?: Partial<Limits>
  /** Without a service, and so without a credential. */
  readonly bare?: boolean
  readonly expected: Expected
  /** What else has to be so. */
  readonly look?: (
    ran: Ran,
    at: { readonly runtime: 'runc' | 'runsc'; readonly engine: Engine; readonly strict: boolean },
  ) => void
  /** Where the kernel in user space answers in another way that is as safe. */
  readonly runsc?: Partial<Expected>
  /** Where an engine that strict settings take, in which root is nobody on the machine, lets less through. */
  readonly strict?: Partial<Expected>
}

const exited = (...lines: readonly string[]): Expected => ({
  end: 'exited',
  why: null,
  exit: 0,
  stdout: lines.map((line) => `${line}\n`).join(''),
})
const memory: Expected = { end: 'stopped', why: 'memory', exit: null, stdout: 'begun\n' }
/** The kernel in user space gets no more threads from the host's, and ends with all that is in it. */
const crash = (stdout: string): Expected => ({ end: 'exited', why: 'sandbox_crash', exit: null, stdout })
const full = ['bytes: No space left on device', 'files: No space left on device', 'whole again: True']
const fill = (at: string): Attack => ({
  steps: [[at]],
  expected: exited(...full),
  // gVisor knows no limit of inodes; its files are charged to the container, which is ended.
  runsc: { end: 'stopped', why: 'memory', exit: null, stdout: '' },
})
/** What is past the limit is dropped and counted; what ends the run is its time. */
const flood: Attack = {
  limits: { wall_s: 4, output_kb: 16 },
  expected: { end: 'stopped', why: 'time', exit: null, stdout: (text) => expect(text).toMatch(/^begun\n(?:x*|\n*)$/) },
  look(ran) {
    expect(ran.size).toBeLessThanOrEqual(17 * 1024)
    expect(ran.end.counts.dropped_bytes).toBeGreaterThan(0)
  },
}
const network = (loopback: string): Expected =>
  exited(
    'interfaces: lo',
    'routes: []',
    ...addresses.flatMap((address) => [`tcp ${address} refused`, `udp ${address} refused`]),
    'dns refused',
    `open on loopback: ${loopback}`,
  )
const addresses = `1.1.1.1 10.0.0.1 172.17.0.1 192.168.0.1 169.254.169.254 100.100.100.200 224.0.0.1 255.255.255.255
  2606:4700:4700::1111 fd00:ec2::254 ff02::1`.split(/\s+/)

/** The only outcome of each program that passes: what Writ saw, what came out, to the byte. */
export const attacks: Readonly<Record<string, readonly Attack[]>> = {
  'D-02-families.py': [
    {
      expected: exited(
        'socket 1 stream/0 stream/1 dgram/0 dgram/1 raw/0 raw/1 seqpacket/0 seqpacket/1',
        'socketpair 1 stream dgram raw seqpacket',
        'socket 2 stream/0 stream/6 dgram/0 dgram/1 dgram/17',
        'socket 10 stream/0 stream/6 dgram/0 dgram/17 dgram/58',
      ),
      strict: exited(
        'socket 1 stream/0 stream/1 dgram/0 dgram/1 raw/0 raw/1 seqpacket/0 seqpacket/1',
        'socketpair 1 stream dgram raw seqpacket',
        'socket 2 stream/0 stream/6 dgram/0 dgram/17',
        'socket 10 stream/0 stream/6 dgram/0 dgram/17',
      ),
    },
  ],
  'D-02-other-entries.py': [{ expected: exited('int 0x80 refused', 'x32 refused') }],
  'D-02-syscalls.py': [
    {
      steps: [[table]],
      expected: { ...exited(), stdout: (text) => expect(text).toContain(' read ') },
      look(ran, { runtime }) {
        const through = new Set(ran.stdout.trim().split(' '))
        const golden = runtime === 'runc' ? runcCalls : runscCalls
        expect([...through].filter((call) => !golden.has(call))).toEqual([])
        expect([...neededCalls].filter((call) => !through.has(call))).toEqual([])
      },
    },
  ],
  'D-04-kernel-calls.py': [{ expected: exited('refused 82') }],
  'D-05-privilege.py': [
    {
      expected: exited(
        'Uid 65532 65532 65532 65532',
        'Gid 65532 65532 65532 65532',
        'Groups 65532',
        ...['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'].map((set) => `Cap${set} 0000000000000000`),
        'NoNewPrivs 1',
        'Seccomp 2',
        'gained by setuid programs of the image: []',
        'own setuid program: 65532',
        ...['setuid', 'setgid', 'setgroups', 'setresuid', 'chown', 'nice', 'fifo scheduling', 'file capability'].map(
          (what) => `${what} refused`,
        ),
      ),
      // A niceness of the kernel in user space, which schedules nothing by it.
      runsc: { stdout: (text) => expect(text.match(/WENT THROUGH/g)).toEqual(['WENT THROUGH']) },
    },
  ],
  'D-06-kernel-files.py': [{ expected: exited('written: []', 'read: []', 'init: refused') }],
  'D-07-execute.py': [
    {
      expected: exited(
        '/work runs it: 0',
        ...['/tmp', '/out', '/dev/shm'].map((one) => `${one} does not run it`),
        ...['/run', '/var/tmp', '/etc', '/usr/bin', '/dev', '/dev/mqueue', '/'].map(
          (one) => `${one} cannot be written to`,
        ),
        'memory runs it: 0',
      ),
    },
  ],
  'D-08-devices.py': [
    {
      expected: exited(
        'made: []',
        'devices: /dev/full /dev/null /dev/ptmx /dev/pts/ptmx /dev/random /dev/urandom /dev/zero',
        'block devices: []',
        'written: []',
      ),
      runsc: {
        // Of the kernel in user space, which has its own of each and none of the host's.
        stdout:
          'made: []\ndevices: /dev/char/10:200 /dev/char/10:229 /dev/char/1:3 /dev/char/1:5 /dev/char/1:7 /dev/char/1:8 /dev/char/1:9 /dev/full /dev/fuse /dev/net/tun /dev/null /dev/ptmx /dev/pts/ptmx /dev/random /dev/urandom /dev/zero\nblock devices: []\nwritten: []\n',
      },
    },
  ],
  'D-09-sockets.py': [{ expected: exited('sockets: []', 'reached: []', 'unix sockets of others: []') }],
  'D-10-information.py': [
    {
      expected: { ...exited(), stdout: (text) => expect(text).toContain('== /proc/self/mountinfo\n') },
      look(ran, { engine: { host }, strict }) {
        const parts = new Map(
          ran.stdout.split(/^== /m).map((part) => {
            const end = part.indexOf('\n')
            return [part.slice(0, end), part.slice(end + 1).trim()] as const
          }),
        )
        expect(parts.get('/etc/resolv.conf')).toBe('')
        // Today's engine writes no such file where there is no network.
        expect(parts.get('/etc/hostname')).toBe(strict ? '' : 'writ')
        expect(parts.get('host name')).toBe('writ')
        expect(
          parts
            .get('environment')
            ?.split('\n')
            .map((line) => line.split('=')[0]),
        ).toEqual('HOME LANG PATH TMPDIR VAULT_ADDR VAULT_TOKEN WRIT_OUT'.split(' '))
        expect(parts.get('environment')).toMatch(/^VAULT_TOKEN=writ_ph_[0-9a-f]{32}$/m)
        expect(parts.get('processes')).toBe('1 /writ-agent\n' + (parts.get('processes')?.split('\n')[1] ?? ''))
        // What the engine calls its own folder and this container stands in the tables of mounts and groups, and nowhere else.
        const mounts = (parts.get('/proc/self/mountinfo') ?? '') + (parts.get('/proc/self/mounts') ?? '')
        const rest = [...parts].filter(([name]) => !/mount|cgroup/.test(name)).map(([, text]) => text)
        const addresses = Object.values(networkInterfaces())
          .flatMap((list) => list ?? [])
          .filter((one) => !one.internal)
          .map((one) => one.address)
        // Whole words: the name of a machine may be two letters, and those stand in the random name of the engine's folder some day.
        const said = (word: string) => new RegExp(`(?<![\\w.-])${literal(word)}(?![\\w-])`).exec(ran.stdout)?.[0]
        for (const word of [hostname(), userInfo().homedir, process.cwd(), ran.execution, ...addresses])
          if (word.length > 1) expect(said(word)).toBeUndefined()
        expect(mounts).not.toContain('docker.sock')
        for (const text of rest) {
          expect(text).not.toMatch(/[0-9a-f]{64}/)
          expect(text).not.toContain(host.replace(/^unix:\/\/|\/docker\.sock$/g, ''))
        }
      },
    },
  ],
  'D-11-daemons.py': [
    { steps: [[], ['look']], expected: exited('started', 'left of the step before: 0', 'file grew: False') },
  ],
  'D-11-kill-all.py': [{ expected: { ...exited('still here'), exit: 137 } }],
  'D-11-stop-all.py': [
    { limits: { wall_s: 3 }, expected: { end: 'stopped', why: 'time', exit: null, stdout: 'begun\n' } },
  ],
  'D-12-fork-bomb.py': [
    {
      limits: { cpu_s: 3, memory_mb: 1024 },
      expected: { end: 'stopped', why: 'time', exit: null, stdout: 'begun\n' },
      runsc: crash('begun\n'),
    },
  ],
  'D-12-fork-limit.py': [
    {
      limits: { memory_mb: 1024 },
      expected: exited('refused before 256: True', 'refused before 256: True'),
      runsc: crash(''),
    },
  ],
  'D-13-memory-shared.py': [{ expected: memory }],
  'D-13-memory.py': [{ expected: memory }],
  'D-14-fill.py': ['/work', '/tmp', '/out', '/dev/shm'].map(fill),
  'D-14-sparse.py': [
    {
      expected: {
        ...exited(
          ...['/work', '/tmp', '/out', '/dev/shm'].flatMap((at) => [
            `${at} size File too large`,
            `${at} byte File too large`,
            `${at} ${48 << 20}`,
          ]),
        ),
        outputs: ['kept'],
      },
      look: (ran) => expect(ran.end.counts.withheld_files).toBe(1),
    },
  ],
  'D-20-leak-descriptors.py': [
    {
      expected: exited(
        '0 pipe',
        '1 pipe',
        '2 pipe',
        'working folder: /work/project True',
        '/dev/tty none',
        '/dev/console none',
        'cannot type',
        'of process 1: []',
        'agent cannot be written',
        'agent cannot be moved',
      ),
      // gVisor tells which numbers there are, and opens none.
      runsc: {
        stdout: (text) => expect(text).toContain("of process 1: ['/proc/1/fd', '/proc/self/../1/fd']\nagent cannot"),
      },
    },
  ],
  'D-21-large.py': [{ expected: { ...exited('left'), outputs: ['f0', 'f1'] } }],
  'D-21-many.py': [
    {
      expected: {
        ...exited('left'),
        outputs: Array.from({ length: 1000 }, (_, at) => `f${String(at).padStart(4, '0')}`),
      },
    },
  ],
  'D-21-names.py': [
    {
      expected: {
        ...exited('24'),
        // Of two that a file system may take for one, one; none that is read in two ways.
        outputs: [
          ' leading',
          '$(id)',
          '%2e%2e%2f',
          '-rf',
          '...',
          '..hidden',
          'SAME',
          '`id`',
          'con',
          '\u00e9',
          'quote"\'',
          'trailing ',
          'x'.repeat(255),
        ].toSorted(),
      },
    },
  ],
  'D-21-outputs.py': [{ expected: { ...exited('left'), outputs: ['a/b/c/deep.txt', 'good.txt', 'setuid'] } }],
  'D-24-core.py': [
    {
      expected: exited(
        'limit kept (0, 0)',
        ...['SIGSEGV', 'SIGABRT', 'SIGBUS', 'SIGQUIT'].map((name) => `${name} without a core`),
        'nofile kept',
        'files: []',
      ),
    },
  ],
  'D-25-output-flood.py': [flood],
  'D-25-output-lines.py': [flood],
  'D-26-overwrite-runtime.py': [{ expected: exited('done: []') }],
  'D-27-handles.py': [{ expected: exited('opened: [] refused with: EPERM') }],
  'E-14-network.py': [{ expected: network('[3128]') }, { bare: true, expected: network('[]') }],
  'E-14-tunnels.py': [
    {
      limits: { egress_requests: 40 },
      expected: exited(
        ...['ssh', 'metadata', 'loopback'].map((where) => `connect ${where}: 405`),
        ...['', ' of metadata', ' of https'].map((which) => `absolute form${which}: 400 bad_url`),
        ...['another host', 'absolute and another host', 'two hosts'].map((what) => `${what}: 400 bad_url`),
        'no host: 400',
        'user in the host: 400 bad_url',
        'unknown service: 403 unknown_service',
        'out of the service: 400 ambiguous_path',
        ...['two lengths', 'length and chunks', 'folded header', 'bare line feeds'].map((what) => `${what}: 400`),
        'websocket: 501',
        'http 2: 400',
        'trace: 405 method_not_allowed',
        ...['8.8.8.8', '169.254.169.253', '192.168.0.1'].map((server) => `dns by hand to ${server} refused`),
        'o5ugc5baorugkidsovxca23on53xg.evil.example not resolved',
        ...['evil.example', 'host.docker.internal', 'gateway.docker.internal', 'metadata.google.internal'].map(
          (name) => `${name} not resolved`,
        ),
        ...['quic', 'quic 6', 'ping', 'smtp', 'ssh', 'mdns', 'broadcast'].map((way) => `${way} refused`),
      ),
      look({ end }) {
        // What the credential was used for, and nothing of all this.
        expect(end.counts.egress).toMatchObject({ allowed: 1, blocked: 13 })
      },
    },
  ],
}

import { describe, expect, test } from 'vitest'
import { runWasi } from '../../src/policy/wasi.ts'

const utf8 = (text: string): number[] => [...Buffer.from(text)]

/** Signed LEB128, as the binary format writes its constants; sizes and counts here are below 2^27, where it serves too. */
function leb(value: number): number[] {
  const out: number[] = []
  for (let rest = value; ; rest >>= 7) {
    const low = rest & 0x7f
    if ((rest >> 7 === 0 && (low & 0x40) === 0) || (rest >> 7 === -1 && (low & 0x40) !== 0)) return [...out, low]
    out.push(low | 0x80)
  }
}

const magic = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]
const counted = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]
const section = (id: number, bytes: readonly number[]): number[] => [id, ...counted(bytes)]
const i32 = 0x7f
const constant = (value: number): number[] => [0x41, ...leb(value)]

function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

/**
 * A command that calls each import in turn, with no argument, writes one byte of each answer to `fd`, and exits with 7.
 */
function command(names: readonly string[], from = 'wasi_snapshot_preview1', fd = 1): Uint8Array {
  const types = [
    [0x60, 0, 1, i32],
    [0x60, 4, i32, i32, i32, i32, 1, i32],
    [0x60, 0, 0],
    [0x60, 1, i32, 0],
  ]
  const imported = (name: string, type: number, module = from): number[] => [
    ...counted(utf8(module)),
    ...counted(utf8(name)),
    0,
    type,
  ]
  const imports = [
    ...names.map((name) => imported(name, 0)),
    imported('fd_write', 1, 'wasi_snapshot_preview1'),
    imported('proc_exit', 3, 'wasi_snapshot_preview1'),
  ]
  const store = (at: number, value: readonly number[]): number[] => [...constant(at), ...value, 0x36, 2, 0]
  const body = [
    ...names.flatMap((_, index) => [...constant(1000 + index), 0x10, index, 0x3a, 0, 0]),
    ...store(0, constant(1000)),
    ...store(4, constant(names.length)),
    ...[fd, 0, 1, 16].flatMap(constant),
    0x10,
    names.length,
    0x1a,
    ...constant(7),
    0x10,
    names.length + 1,
    0x0b,
  ]
  return Uint8Array.from([
    ...magic,
    ...section(1, [types.length, ...types.flat()]),
    ...section(2, [imports.length, ...imports.flat()]),
    ...section(3, [1, 2]),
    ...section(5, [1, 0, 1]),
    ...section(7, [2, ...counted(utf8('memory')), 2, 0, ...counted(utf8('_start')), 0, imports.length]),
    ...section(10, [1, ...counted([0, ...body])]),
  ])
}

const options = { args: [], env: [], stdin: new Uint8Array(), maxStdout: 1000 }

describe('the preview1 shim', () => {
  test('[G-tools-no-files] has no file, folder or socket: each such call answers ENOSYS', async () => {
    const calls = [
      'path_open',
      'path_filestat_get',
      'path_unlink_file',
      'path_readlink',
      'path_rename',
      'path_symlink',
      'path_create_directory',
      'fd_readdir',
      'fd_pread',
      'fd_pwrite',
      'fd_allocate',
      'sock_accept',
      'sock_recv',
      'sock_send',
      'proc_raise',
      'constructor',
      '__proto__',
    ]
    const run = await runWasi(await WebAssembly.compile(command(calls)), options)
    expect([run.exit, [...run.stdout]]).toEqual([7, calls.map(() => 52)])
  })

  test('has no preopened folder and no descriptor beside the three streams', async () => {
    const prestat = await runWasi(
      await WebAssembly.compile(command(['fd_prestat_get', 'fd_prestat_dir_name'])),
      options,
    )
    expect([...prestat.stdout]).toEqual([8, 8])
    const other = await runWasi(await WebAssembly.compile(command(['fd_readdir'], undefined, 3)), options)
    expect([other.exit, other.stdout.length]).toEqual([7, 0])
  })

  test('refuses a module that imports from elsewhere', async () => {
    const module = await WebAssembly.compile(command(['read'], 'env'))
    await expect(runWasi(module, options)).rejects.toThrow('import env.read')
  })

  test('ends a program that writes more than it may', async () => {
    const module = await WebAssembly.compile(command(['path_open', 'path_open', 'path_open']))
    await expect(runWasi(module, { ...options, maxStdout: 2 })).rejects.toThrow('wrote more than it may')
  })
})

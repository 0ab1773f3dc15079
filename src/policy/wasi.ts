import { randomFillSync } from 'node:crypto'

/** What a run of a command-mode WASI program left behind. */
export interface WasiRun {
  readonly exit: number
  readonly stdout: Uint8Array
  readonly stderr: string
}

export interface WasiOptions {
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly stdin: Uint8Array
  /** Bytes of standard output; more ends the program. */
  readonly maxStdout: number
}

/** Thrown through the module by `proc_exit`: unwinding is the only way out of it. */
class Exit extends Error {
  readonly code: number
  constructor(code: number) {
    super(`exit ${code}`)
    this.code = code
  }
}

// Errno values of wasi_snapshot_preview1.
const ok = 0
const badFd = 8
const invalid = 28
const noSys = 52
const maxStderr = 64 * 1024

/**
 * Runs a `wasip1` command with arguments, environment, clocks, random bytes and the three standard streams, and with
 * nothing else: no preopened folder, no file, no socket; each other call answers ENOSYS. (`node:wasi` would print a
 * warning and calls itself no sandbox.) A trap of the program is thrown as the engine's own error.
 */
export async function runWasi(module: WebAssembly.Module, options: WasiOptions): Promise<WasiRun> {
  const host = new Host(options)
  const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: host.imports(module) })
  const { memory, _start: start } = instance.exports
  if (!(memory instanceof WebAssembly.Memory) || typeof start !== 'function') throw new TypeError('not a WASI command')
  host.memory = memory
  let exit = 0
  try {
    start()
  } catch (error) {
    if (!(error instanceof Exit)) throw error
    exit = error.code
  }
  return { exit, stdout: Buffer.concat(host.stdout), stderr: Buffer.concat(host.stderr).toString('utf8') }
}

type Call = (...args: number[]) => number

class Host {
  memory: WebAssembly.Memory | null = null
  readonly stdout: Uint8Array[] = []
  readonly stderr: Uint8Array[] = []
  private readonly options: WasiOptions
  private read = 0
  private written = 0
  private complained = 0

  constructor(options: WasiOptions) {
    this.options = options
  }

  /** Exactly what the module imports; names without an implementation here answer ENOSYS. */
  imports(module: WebAssembly.Module): WebAssembly.ModuleImports {
    const implemented = this.calls()
    const table: WebAssembly.ModuleImports = Object.create(null) as WebAssembly.ModuleImports
    for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
      if (from !== 'wasi_snapshot_preview1' || kind !== 'function') throw new TypeError(`import ${from}.${name}`)
      table[name] = implemented.get(name) ?? (() => noSys)
    }
    return table
  }

  private get view(): DataView {
    if (this.memory === null) throw new TypeError('called before its memory was there')
    return new DataView(this.memory.buffer)
  }

  private bytes(pointer: number, length: number): Uint8Array {
    return new Uint8Array(this.view.buffer, pointer >>> 0, length >>> 0)
  }

  private calls(): ReadonlyMap<string, Call | ((...args: never[]) => number)> {
    return new Map<string, Call | ((...args: never[]) => number)>([
      ['args_sizes_get', (count: number, size: number) => this.sizes(this.options.args, count, size)],
      ['args_get', (list: number, buffer: number) => this.strings(this.options.args, list, buffer)],
      ['environ_sizes_get', (count: number, size: number) => this.sizes(this.options.env, count, size)],
      ['environ_get', (list: number, buffer: number) => this.strings(this.options.env, list, buffer)],
      ['clock_time_get', (id: number, _precision: bigint, out: number) => this.clock(id, out)],
      ['clock_res_get', (_id: number, out: number) => this.u64(out, 1_000_000n)],
      ['random_get', (pointer: number, length: number) => this.random(pointer, length)],
      ['sched_yield', () => ok],
      ['poll_oneoff', (from: number, to: number, count: number, out: number) => this.poll(from, to, count, out)],
      ['fd_read', (fd: number, list: number, count: number, out: number) => this.fdRead(fd, list, count, out)],
      ['fd_write', (fd: number, list: number, count: number, out: number) => this.fdWrite(fd, list, count, out)],
      ['fd_close', (fd: number) => (fd <= 2 ? ok : badFd)],
      ['fd_fdstat_get', (fd: number, out: number) => this.fdstat(fd, out)],
      ['fd_fdstat_set_flags', (fd: number) => (fd <= 2 ? ok : badFd)],
      ['fd_prestat_get', () => badFd],
      ['fd_prestat_dir_name', () => badFd],
      ['proc_exit', (code: number) => this.exit(code)],
    ])
  }

  private u32(pointer: number, value: number): void {
    this.view.setUint32(pointer >>> 0, value, true)
  }

  private u64(pointer: number, value: bigint): number {
    this.view.setBigUint64(pointer >>> 0, value, true)
    return ok
  }

  private sizes(texts: readonly string[], count: number, size: number): number {
    this.u32(count, texts.length)
    this.u32(
      size,
      texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0),
    )
    return ok
  }

  private strings(texts: readonly string[], list: number, buffer: number): number {
    let at = buffer
    for (const [index, text] of texts.entries()) {
      this.u32(list + 4 * index, at)
      const encoded = Buffer.from(`${text}\0`)
      this.bytes(at, encoded.length).set(encoded)
      at += encoded.length
    }
    return ok
  }

  private clock(id: number, out: number): number {
    if (id === 0) return this.u64(out, BigInt(Date.now()) * 1_000_000n)
    if (id === 1) return this.u64(out, process.hrtime.bigint())
    return invalid
  }

  private random(pointer: number, length: number): number {
    randomFillSync(this.bytes(pointer, length))
    return ok
  }

  /**
   * Go's scheduler sleeps here. Every subscription is answered as ready at once: a clock that rings early makes the
   * scheduler look again, and nothing but clocks and the three streams is ever subscribed to.
   */
  private poll(from: number, to: number, count: number, out: number): number {
    for (let index = 0; index < count; index += 1) {
      const subscription = from + 48 * index
      const event = to + 32 * index
      this.bytes(event, 32).fill(0)
      this.u64(event, this.view.getBigUint64(subscription >>> 0, true))
      this.view.setUint8((event >>> 0) + 10, this.view.getUint8((subscription >>> 0) + 8))
    }
    this.u32(out, count)
    return ok
  }

  private fdRead(fd: number, list: number, count: number, out: number): number {
    if (fd !== 0) return badFd
    let total = 0
    for (let index = 0; index < count; index += 1) {
      const pointer = this.view.getUint32((list >>> 0) + 8 * index, true)
      const length = this.view.getUint32((list >>> 0) + 8 * index + 4, true)
      const part = this.options.stdin.subarray(this.read, this.read + length)
      this.bytes(pointer, part.length).set(part)
      this.read += part.length
      total += part.length
    }
    this.u32(out, total)
    return ok
  }

  private fdWrite(fd: number, list: number, count: number, out: number): number {
    if (fd !== 1 && fd !== 2) return badFd
    let total = 0
    for (let index = 0; index < count; index += 1) {
      const pointer = this.view.getUint32((list >>> 0) + 8 * index, true)
      const length = this.view.getUint32((list >>> 0) + 8 * index + 4, true)
      total += length
      this.keep(fd, this.bytes(pointer, length).slice())
    }
    this.u32(out, total)
    return ok
  }

  private keep(fd: number, part: Uint8Array): void {
    if (fd === 1) {
      this.written += part.length
      if (this.written > this.options.maxStdout) throw new RangeError('the program wrote more than it may')
      this.stdout.push(part)
      return
    }
    // What a crash prints is kept from its start, where the cause stands.
    const room = Math.max(0, maxStderr - this.complained)
    this.complained += part.length
    if (room > 0) this.stderr.push(part.subarray(0, room))
  }

  private fdstat(fd: number, out: number): number {
    if (fd > 2) return badFd
    this.bytes(out, 24).fill(0)
    // Character device, with the rights to read or write.
    this.view.setUint8(out >>> 0, 2)
    this.u64(out + 8, fd === 0 ? 2n : 64n)
    return ok
  }

  private exit(code: number): never {
    throw new Exit(code)
  }
}

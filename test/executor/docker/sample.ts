import { Readable } from 'node:stream'
import { extract } from 'tar-stream'

/** Bytes of a frame as an agent would send it, or as none would. */
export function agentBytes(kind: number, channel: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(9 + payload.length)
  bytes.writeUInt32BE(5 + payload.length, 0)
  bytes.writeUInt8(kind, 4)
  bytes.writeUInt32BE(channel, 5)
  bytes.set(payload, 9)
  return bytes
}

export function json(kind: number, channel: number, content: unknown): Buffer {
  return agentBytes(kind, channel, Buffer.from(JSON.stringify(content)))
}

export const ready: Buffer = json(0x81, 0, {
  protocol: 'writ-frame/1',
  version: '1',
  arch: 'amd64',
  kernel: '6.1.0',
  uid: 65_532,
  no_new_privs: true,
  seccomp: 2,
  dumpable: false,
})

export const prepared: Buffer = json(0x82, 0, { files: 0, bytes: 0 })

export function exited(step: number): Buffer {
  return json(0x85, step, { exit: 0, signal: null, ms: 5, cpu_ms: 1, stopped: null })
}

/** Name, mode and text of each entry; each is a regular file. */
export async function entriesOf(archive: Buffer): Promise<readonly (readonly [string, number, string])[]> {
  const entries: (readonly [string, number, string])[] = []
  const reader = extract()
  Readable.from([archive]).pipe(reader)
  for await (const entry of reader) {
    const parts: Buffer[] = []
    for await (const part of entry) parts.push(part as Buffer)
    if (entry.header.type !== 'file') throw new Error(`${entry.header.name} is no file`)
    entries.push([entry.header.name, entry.header.mode ?? 0, Buffer.concat(parts).toString('utf8')])
  }
  return entries
}

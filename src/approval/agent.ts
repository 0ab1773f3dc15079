import { connect } from 'node:net'
import { WritError } from '../error.ts'

/** A key in an SSH agent (draft-ietf-sshm-ssh-agent), Ed25519 only. `x` as in a JWK. */
export interface AgentKey {
  readonly x: string
  readonly comment: string
  readonly blob: Buffer
}

const requestIdentities = 11
const identitiesAnswer = 12
const signRequest = 13
const signResponse = 14
const maxReply = 256 * 1024

/** The Ed25519 keys an agent holds. Rejects `key_unavailable` where there is no agent. */
export async function agentKeys(socketPath: string): Promise<readonly AgentKey[]> {
  const reply = reader(await ask(socketPath, Buffer.from([requestIdentities]), identitiesAnswer))
  const keys: AgentKey[] = []
  for (let count = reply.uint32(); count > 0; count--) {
    const blob = reply.bytes()
    const comment = reply.bytes().toString('utf8')
    const inner = reader(blob)
    if (inner.bytes().toString('latin1') !== 'ssh-ed25519') continue
    const key = inner.bytes()
    if (key.length === 32) keys.push({ x: key.toString('base64url'), comment, blob })
  }
  return keys
}

/** The agent's raw Ed25519 signature (64 bytes) over `data`. The agent may ask its owner first. */
export async function agentSign(socketPath: string, key: AgentKey, data: Uint8Array): Promise<Buffer> {
  const request = Buffer.concat([Buffer.from([signRequest]), string(key.blob), string(data), Buffer.alloc(4)])
  const signature = reader(reader(await ask(socketPath, request, signResponse)).bytes())
  const format = signature.bytes().toString('latin1')
  const raw = signature.bytes()
  if (format !== 'ssh-ed25519' || raw.length !== 64)
    throw new WritError('key_unavailable', 'The SSH agent gave a signature of another kind.')
  return raw
}

function string(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

function reader(buffer: Buffer): { uint32(): number; bytes(): Buffer } {
  let at = 0
  const take = (length: number): Buffer => {
    if (length < 0 || at + length > buffer.length)
      throw new WritError('key_unavailable', 'The SSH agent sent a malformed reply.')
    at += length
    return buffer.subarray(at - length, at)
  }
  const uint32 = (): number => take(4).readUInt32BE()
  return { uint32, bytes: () => take(uint32()) }
}

async function ask(socketPath: string, request: Buffer, expected: number): Promise<Buffer> {
  return await new Promise<Buffer>((resolve, reject) => {
    const refuse = (message: string): void => {
      socket.destroy()
      reject(
        new WritError('key_unavailable', message, {
          remedy: 'Start an SSH agent, add an Ed25519 key with "ssh-add", and see that SSH_AUTH_SOCK names it.',
        }),
      )
    }
    const socket = connect(socketPath)
    let have = Buffer.alloc(0)
    // A person may have to touch a token first.
    socket.setTimeout(60_000, () => refuse('The SSH agent did not answer in a minute.'))
    socket.on('error', () => refuse('No SSH agent answers.'))
    socket.on('end', () => refuse('The SSH agent closed the connection.'))
    socket.on('data', (chunk: Buffer) => {
      have = Buffer.concat([have, chunk])
      if (have.length < 4) return
      const length = have.readUInt32BE()
      if (length < 1 || length > maxReply) return refuse('The SSH agent sent a malformed reply.')
      if (have.length < 4 + length) return
      if (have[4] !== expected) return refuse('The SSH agent refused.')
      socket.destroy()
      resolve(have.subarray(5, 4 + length))
    })
    socket.write(string(request))
  })
}

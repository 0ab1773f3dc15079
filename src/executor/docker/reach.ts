import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { Agent as TlsAgent } from 'node:https'
import { Duplex } from 'node:stream'
import type Docker from 'dockerode'
import type { DockerSettings } from '../../execution/engine.ts'

/** How an engine is dialled, or why it may not be. */
export type Reach =
  | { readonly options: Docker.DockerOptions & { readonly agent: Agent }; close(): void }
  | { readonly refused: string; readonly fix: string }

// Everything dockerode would otherwise take from the environment is said here.
const nothing = {
  host: undefined,
  port: undefined,
  username: undefined,
  socketPath: undefined,
  ca: undefined,
  cert: undefined,
  key: undefined,
} as const

/** Never throws: what cannot be dialled safely is not dialled. */
export function reach(settings: DockerSettings, env: Readonly<Record<string, string>>): Reach {
  const { host, tls } = settings
  const url = new URL(host)
  switch (url.protocol) {
    case 'unix:': {
      const agent = new Agent({ keepAlive: true })
      return {
        options: { ...nothing, protocol: 'http', socketPath: host.slice('unix://'.length), agent },
        close: () => agent.destroy(),
      }
    }
    case 'tcp:': {
      if (tls === null)
        return {
          refused: 'an engine over TCP without TLS lets everybody in who can reach it, and is not used',
          fix: 'Give ca, cert and key under docker.tls in writ.yaml, or use an ssh:// host.',
        }
      return overTls(url, tls)
    }
    case 'ssh:':
      return overSsh(url, env)
    default:
      return {
        refused: 'the engine is at no kind of address that Writ knows',
        fix: 'Correct docker.host in writ.yaml.',
      }
  }
}

function overTls(url: URL, tls: NonNullable<DockerSettings['tls']>): Reach {
  try {
    const [ca, cert, key] = [tls.ca, tls.cert, tls.key].map((path) => readFileSync(path))
    const agent = new TlsAgent({ keepAlive: true, minVersion: 'TLSv1.2', rejectUnauthorized: true })
    const host = url.hostname.replace(/^\[|\]$/g, '')
    return {
      options: { ...nothing, protocol: 'https', host, port: Number(url.port), ca, cert, key, agent },
      close: () => agent.destroy(),
    }
  } catch {
    return {
      refused: 'the files for TLS to the engine cannot be read',
      fix: 'Check ca, cert and key under docker.tls in writ.yaml, and that the user of the broker may read them.',
    }
  }
}

/**
 * As the Docker client does: the system's own ssh, so that keys, agent and known hosts are the operator's. A host whose
 * key is not known already is not talked to, and nothing is asked. dockerode's own way would trust any key.
 */
function overSsh(url: URL, env: Readonly<Record<string, string>>): Reach {
  const children = new Set<() => void>()
  const agent = new Agent({ keepAlive: true })
  const argv = [
    '-T',
    '-a',
    '-x',
    '-o',
    'BatchMode=yes',
    '-o',
    'StrictHostKeyChecking=yes',
    // Else a host whose key is known may have others written to the file of known hosts, or vouch for one by DNS.
    '-o',
    'UpdateHostKeys=no',
    '-o',
    'VerifyHostKeyDNS=no',
    '-o',
    'ConnectTimeout=10',
    '-o',
    'ServerAliveInterval=10',
    '-o',
    'ServerAliveCountMax=3',
    '-l',
    url.username,
    ...(url.port === '' ? [] : ['-p', url.port]),
    '--',
    url.hostname.replace(/^\[|\]$/g, ''),
    'docker',
    'system',
    'dial-stdio',
  ]
  const connect = (): Duplex => {
    const child = spawn('ssh', argv, { env: { ...env }, cwd: '/', stdio: ['pipe', 'pipe', 'ignore'] })
    const stream = Duplex.from({ readable: child.stdout, writable: child.stdin })
    const end = (): void => void child.kill('SIGKILL')
    children.add(end)
    child.once('error', (error) => stream.destroy(error))
    child.once('exit', () => {
      children.delete(end)
      stream.destroy()
    })
    stream.once('close', end)
    // What the agent of HTTP asks of a socket that it keeps.
    return Object.assign(stream, {
      setKeepAlive: () => stream,
      setNoDelay: () => stream,
      setTimeout: () => stream,
      ref: () => stream,
      unref: () => stream,
    })
  }
  agent.createConnection = connect
  return {
    options: { ...nothing, protocol: 'http', host: 'engine', port: 80, agent },
    close() {
      agent.destroy()
      for (const end of children) end()
    },
  }
}

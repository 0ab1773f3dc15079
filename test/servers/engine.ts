import { request } from 'node:http'
import { runsc } from './cache.ts'
import { answers } from './docker.ts'

/** A Docker Engine that tests may use: remove only what you made there, and leave nothing. */
export interface Engine {
  /** `unix:///…`, as `docker.host` of writ.yaml takes it. */
  readonly host: string
  /** OCI runtimes it knows beside its default: `runsc` where gVisor is set up. */
  readonly runtimes: ReadonlySet<string>
  /** Names of its images, as `python:latest` … */
  readonly images: ReadonlySet<string>
  /** One question to its API, as JSON; rejects where it does not answer with a 2xx. */
  ask(method: string, path: string, body?: unknown): Promise<unknown>
}

export interface Lacking {
  /** What is missing, why, and how to get it: for `ctx.skip`. */
  readonly lacking: string
}

const remedy =
  'bash test/servers/docker.sh start prints the address of one (root; docker.io, containerd, runc, debootstrap), to be given in WRIT_TEST_DOCKER'

const newerRemedy =
  'bash test/servers/docker.sh build, then bash test/servers/docker.sh newer ADDRESS print the address of one made beside the engine at ADDRESS, to be given in WRIT_TEST_DOCKER_NEW'

/** The engine of `WRIT_TEST_DOCKER_NEW`: one that `docker.strict` takes, with Writ's images `base` and `python`. */
export async function newerEngine(): Promise<Engine | Lacking> {
  const host = process.env['WRIT_TEST_DOCKER_NEW']
  if (host === undefined || host === '') return { lacking: `no newer Docker Engine is named: ${newerRemedy}` }
  return (await engineAt(host)) ?? { lacking: `no Docker Engine answers at ${host}: ${newerRemedy}` }
}

/**
 * The engine of `WRIT_TEST_DOCKER`, or the machine's own where it has the images asked for (`base:bookworm` unless told);
 * with `runsc`, one that has gVisor.
 */
export async function engine(
  needs: { readonly images?: readonly string[]; readonly runsc?: boolean } = {},
): Promise<Engine | Lacking> {
  const given = process.env['WRIT_TEST_DOCKER']
  const host = given === undefined || given === '' ? 'unix:///var/run/docker.sock' : given
  const found = await engineAt(host)
  if (found === null) return { lacking: `no Docker Engine answers at ${host}: ${remedy}` }
  const missing = (needs.images ?? ['base:bookworm']).filter((image) => !found.images.has(image))
  if (missing.length > 0)
    return {
      lacking: `the Docker Engine at ${host} has no image ${missing.join(', ')}: bash test/servers/docker.sh images ${host} makes them; or ${remedy}`,
    }
  if (needs.runsc === true && !found.runtimes.has('runsc'))
    return {
      lacking: `the Docker Engine at ${host} has no runtime runsc: ${runsc() === null ? 'bash test/servers/docker.sh build builds it, and ' : ''}${remedy}`,
    }
  return found
}

/** The engine at an address, or null where none answers. */
export async function engineAt(host: string): Promise<Engine | null> {
  const socket = host.replace(/^unix:\/\//, '')
  if (!(await answers(socket))) return null
  const ask: Engine['ask'] = async (method, path, body) => await askSocket(socket, method, path, body)
  const info = (await ask('GET', '/info')) as { readonly Runtimes?: Readonly<Record<string, unknown>> }
  const images = (await ask('GET', '/images/json')) as readonly { readonly RepoTags: readonly string[] | null }[]
  return {
    host,
    runtimes: new Set(Object.keys(info.Runtimes ?? {})),
    images: new Set(images.flatMap((image) => image.RepoTags ?? [])),
    ask,
  }
}

async function askSocket(socket: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const asked = request(
      {
        socketPath: socket,
        path: `/v1.41${path}`,
        method,
        timeout: 30_000,
        ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' } }),
      },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(parts).toString('utf8')
          const status = response.statusCode ?? 0
          if (status < 200 || status > 299)
            reject(new Error(`${method} ${path}: ${String(status)} ${text.slice(0, 300)}`))
          else resolve(/json/.test(response.headers['content-type'] ?? '') ? JSON.parse(text) : text)
        })
      },
    )
    asked.on('timeout', () => asked.destroy(new Error(`${method} ${path}: no answer`)))
    asked.on('error', reject)
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

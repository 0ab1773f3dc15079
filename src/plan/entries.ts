import { X509Certificate } from 'node:crypto'
import type { Digest } from '../digest.ts'
import { digestOf } from '../digest.ts'
import { pathClash, showPath } from '../request/files.ts'
import type { TaskFile } from '../request/task.ts'
import type { Located, Path } from '../yaml.ts'
import { rangeProblem, urlProblem } from './address.ts'
import type { ContainerSettings } from './container.ts'
import { readEnvironment, readPackages, undefinedName } from './environment.ts'
import type { Packages } from './environment.ts'
import { argumentProblem, inputSchema, referencedInput } from './intents.ts'
import type { Intent } from './intents.ts'
import { leastMemoryMb, limitNames, mirrorRequests, targetLimits } from './limits.ts'
import type { LimitSettings } from './limits.ts'
import type { Limits, Plan, PlanCredential, PlanService } from './plan.ts'
import { runtimes } from './schema.ts'
import type { CatalogFile, CredentialFile, ExecutorKind, IntentFile, Runtime, TargetFile } from './schema.ts'

export interface Target {
  readonly ref: string
  readonly about: string
  readonly labels: Readonly<Record<string, string>>
  readonly executor: ExecutorKind
  readonly image: string | null
  /** Null where nothing of it runs in containers. */
  readonly container: ContainerSettings | null
  readonly packages: Packages
  readonly runtimes: readonly Runtime[]
  readonly intents: readonly string[]
  readonly services: readonly PlanService[]
  readonly environment: Plan['environment']
  readonly limits: Limits
}

/** Headers that steer the connection or that the gateway writes itself. */
const reservedHeaders = new Set(
  'host connection content-length content-type transfer-encoding te trailer upgrade keep-alive expect proxy-authorization proxy-connection via forwarded cookie'.split(
    ' ',
  ),
)

export const maxOperatorFileBytes = 16 * 1024 * 1024

/** What the entries of one catalog file are read with. */
export interface Reading {
  readonly located: Located<CatalogFile>
  readonly credentials: ReadonlyMap<string, PlanCredential>
  readonly intents: ReadonlyMap<string, Intent>
  readonly limits: LimitSettings
  readonly readBeside: (name: string, at: Path) => Buffer
}

/** A credential by name: where its value comes from and how it enters a request. */
export function readCredential(name: string, given: CredentialFile, located: Located<CatalogFile>): PlanCredential {
  const { header, prefix, basic } = given.inject
  if (header !== undefined && reservedHeaders.has(header.toLowerCase()))
    throw located.fail(['credentials', name, 'inject', 'header'], `the header "${header}" cannot carry a credential`)
  return {
    name,
    source:
      given.source.file === undefined
        ? { kind: 'env', ref: given.source.env ?? '' }
        : { kind: 'file', ref: given.source.file },
    inject:
      header !== undefined
        ? { kind: 'header', header, prefix: prefix ?? '' }
        : basic !== undefined
          ? { kind: 'basic', username: basic.username }
          : { kind: 'bearer' },
    lane: 'placeholder',
    exposure: 'none',
  }
}

/** An operator's intent; the bytes of its files go into `bytes`. */
export function readIntent(
  name: string,
  given: IntentFile,
  located: Located<CatalogFile>,
  readBeside: Reading['readBeside'],
  bytes: Map<Digest, Uint8Array>,
): Intent {
  const at: Path = ['intents', name]
  const inputs = inputSchema(given.inputs ?? {})
  if ('problem' in inputs) throw located.fail([...at, 'inputs'], inputs.problem)
  let total = 0
  const files = (given.files ?? []).map((path, i): TaskFile => {
    const content = readBeside(path, [...at, 'files', i])
    total += content.length
    if (total > maxOperatorFileBytes)
      throw located.fail([...at, 'files', i], 'the files of an intent are more than 16 MiB')
    const sha256 = digestOf(content)
    bytes.set(sha256, content)
    return { path, sha256, size: content.length, executable: false }
  })
  const clash = pathClash(files.map((file) => file.path))
  if (clash !== null)
    throw located.fail([...at, 'files'], `${showPath(clash[0])} and ${showPath(clash[1])} cannot stand side by side`)
  for (const [i, step] of given.steps.entries())
    for (const [j, argument] of step.argv.entries()) {
      const where: Path = [...at, 'steps', i, 'argv', j]
      const problem = argumentProblem(argument, inputs.schema)
      if (problem !== null) throw located.fail(where, problem)
      if (j === 0 && given.code_origin === 'operator' && referencedInput(argument) !== null)
        throw located.fail(where, 'with "code_origin: operator" a caller cannot choose what runs')
    }
  return {
    name,
    about: given.about,
    inputs: inputs.schema,
    code_origin: given.code_origin,
    steps: given.steps.map((step) => ({ title: step.title, argv: step.argv, success: step.success ?? [0] })),
    files: files.sort((a, b) => (a.path < b.path ? -1 : 1)),
  }
}

/** What a package mirror may send at once unless the catalog says otherwise. */
const mirrorDownloadMb = 256

/** A target with everything it refers to checked. */
export function readTarget(ref: string, given: TargetFile, reading: Reading): Target {
  const { located, credentials, intents } = reading
  const at: Path = ['targets', ref]
  const mirrors = new Set(Object.values(given.packages ?? {}).map((mirror) => mirror?.split('/')[0]))
  const services = Object.entries(given.services ?? {}).map(([name, service]) => {
    const place: Path = [...at, 'services', name]
    const addresses = service.addresses ?? []
    for (const [i, range] of addresses.entries()) {
      const problem = rangeProblem(range)
      if (problem !== null) throw located.fail([...place, 'addresses', i], `this ${problem}`)
    }
    const problem = urlProblem(service.url, addresses)
    if (problem !== null) throw located.fail([...place, 'url'], `the URL ${problem}`)
    if (service.credential !== undefined && !credentials.has(service.credential))
      throw located.fail(
        [...place, 'credential'],
        undefinedName('credential', service.credential, [...credentials.keys()]),
      )
    const ca = service.ca === undefined ? null : readCa(service.ca, [...place, 'ca'], reading)
    if (ca !== null && service.url.startsWith('http:'))
      throw located.fail([...place, 'ca'], '"ca" has no meaning for plain http')
    const downloadMb = service.download_mb ?? (mirrors.has(name) ? mirrorDownloadMb : undefined)
    const made: PlanService = {
      name,
      about: service.about,
      url: service.url,
      credential: service.credential ?? null,
      addresses,
      ca,
      ...(downloadMb === undefined ? {} : { download_mb: downloadMb }),
    }
    return made
  })
  for (const [i, intent] of given.intents.entries())
    if (!intents.has(intent))
      throw located.fail([...at, 'intents', i], undefinedName('intent', intent, [...intents.keys()]))
  checkExecutor(given, at, located, intents)
  for (const limit of limitNames) {
    const value = given.limits?.[limit]
    if (value === undefined) continue
    if (value > reading.limits.maxima[limit])
      throw located.fail(
        [...at, 'limits', limit],
        `"${limit}" is more than the maximum ${reading.limits.maxima[limit]}`,
      )
    const least = leastMemoryMb(given.executor)
    if (limit === 'memory_mb' && value < least)
      throw located.fail([...at, 'limits', limit], `"memory_mb" is less than the ${least} a run needs to start`)
  }
  return {
    ref,
    about: given.about,
    labels: given.labels ?? {},
    executor: given.executor,
    image: given.image ?? null,
    container:
      given.executor === 'docker'
        ? {
            oci_runtime: given.container?.oci_runtime ?? null,
            cpus_m: Math.round((given.container?.cpus ?? 1) * 1000),
          }
        : null,
    packages: readPackages(given, at, services, located),
    runtimes: given.runtimes ?? usualRuntimes(given.executor),
    intents: given.intents,
    services,
    environment: readEnvironment(given, at, services, located),
    limits: targetLimits(reading.limits, {
      ...(mirrors.size === 0
        ? {}
        : { egress_requests: Math.max(reading.limits.defaults.egress_requests, mirrorRequests) }),
      ...given.limits,
    }),
  }
}

function checkExecutor(
  given: TargetFile,
  at: Path,
  located: Located<CatalogFile>,
  intents: ReadonlyMap<string, Intent>,
): void {
  const possible = runtimesOf(given.executor)
  for (const [i, runtime] of (given.runtimes ?? []).entries())
    if (!possible.includes(runtime))
      throw located.fail([...at, 'runtimes', i], `the executor "${given.executor}" does not run ${runtime}`)
  if (given.executor === 'docker' && given.image === undefined)
    throw located.fail(
      at,
      'the executor "docker" needs "image": the name of an image the engine has, such as writ/python, which "writ images build python" makes',
    )
  for (const key of ['container', 'packages'] as const)
    if (given.executor !== 'docker' && given[key] !== undefined)
      throw located.fail([...at, key], `"${key}" belongs to the executor "docker"`)
  if (given.executor !== 'isolate') return
  if (given.image !== undefined) throw located.fail([...at, 'image'], 'an isolate has no image')
  for (const [i, name] of given.intents.entries()) {
    const intent = intents.get(name)
    if (intent?.steps === undefined || intent.steps === null || intent.code_origin !== 'operator') continue
    for (const step of intent.steps)
      if (!intent.files.some((file) => file.path === step.argv[0]))
        throw located.fail(
          [...at, 'intents', i],
          `on an isolate the first argument of each step of "${name}" has to be one of its files`,
        )
  }
}

/** Only the certificates of a PEM file: anything else in it, a key above all, must not reach a plan. */
function readCa(path: string, at: Path, { readBeside, located }: Reading): string {
  const text = readBeside(path, at).toString('latin1')
  if (text.includes('PRIVATE KEY'))
    throw located.fail(at, `${showPath(path)} holds a private key; name a file of certificates only`)
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0 || blocks.length > 64)
    throw located.fail(at, `${showPath(path)} holds no PEM certificate, or more than 64`)
  return blocks
    .map((block) => {
      try {
        return new X509Certificate(block).toString()
      } catch {
        throw located.fail(at, `${showPath(path)} holds a certificate that cannot be read`)
      }
    })
    .join('')
}

function runtimesOf(kind: ExecutorKind): readonly Runtime[] {
  if (kind === 'isolate') return ['javascript', 'typescript']
  return kind === 'http' ? [] : runtimes
}

/** What a target runs that names none. Who has an image with Rust says so; the images of Writ have none. */
function usualRuntimes(kind: ExecutorKind): readonly Runtime[] {
  const all = runtimesOf(kind)
  return kind === 'docker' ? all.filter((one) => one !== 'rust') : all
}

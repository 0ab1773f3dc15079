import type { Located, Path } from '../yaml.ts'
import { nearest } from '../yaml.ts'
import type { EnvironmentValue, Plan, PlanService } from './plan.ts'
import type { CatalogFile, Runtime, TargetFile } from './schema.ts'

/** Variables that change what a runtime loads or where it connects; those are the executor's. */
const reservedVariable =
  /^(?:WRIT_.*|PATH|HOME|TMPDIR|LD_.*|DYLD_.*|NODE_.*|PYTHON.*|BASH_ENV|ENV|IFS|(?:HTTPS?|ALL|NO|FTP)_PROXY|SSL_CERT_.*)$/i

/** In containers also those that say where packages come from: what `packages` says of that has to be true. */
const reservedInContainers =
  /^(?:PIP_.*|UV_.*|NPM_CONFIG_.*|YARN_.*|GO(?:PROXY|PRIVATE|NOPROXY|SUMDB|NOSUMDB|INSECURE|VCS|FLAGS|TOOLCHAIN|ENV|ROOT)|LANG|LC_.*|VIRTUAL_ENV)$/i

/** A service of the target and the path of an index in it. */
export interface Mirror {
  readonly service: string
  readonly path: string
}

/** Where a target gets packages from, by package manager; null where it has no mirror for it. */
export interface Packages {
  readonly pip: Mirror | null
  readonly npm: Mirror | null
  readonly go: Mirror | null
}

export function readPackages(
  given: TargetFile,
  at: Path,
  services: readonly PlanService[],
  located: Located<CatalogFile>,
): Packages {
  const read = (manager: keyof Packages): Mirror | null => {
    const text = given.packages?.[manager]
    if (text === undefined) return null
    const slash = text.indexOf('/')
    const service = slash < 0 ? text : text.slice(0, slash)
    const known = services.map((one) => one.name)
    if (!known.includes(service))
      throw located.fail([...at, 'packages', manager], undefinedName('service', service, known))
    return { service, path: slash < 0 ? '' : text.slice(slash + 1) }
  }
  return { pip: read('pip'), npm: read('npm'), go: read('go') }
}

export function readEnvironment(
  given: TargetFile,
  at: Path,
  services: readonly PlanService[],
  located: Located<CatalogFile>,
): Plan['environment'] {
  return Object.entries(given.environment ?? {}).map(([name, entry]) => {
    const place: Path = [...at, 'environment', name]
    if (reservedVariable.test(name)) throw located.fail(place, `the variable "${name}" is the executor's own`)
    if (given.executor === 'docker' && reservedInContainers.test(name))
      throw located.fail(
        place,
        `the variable "${name}" is Writ's own in containers; "packages" says where they come from`,
      )
    const service = services.find((one) => one.name === entry.service)
    const bound = services.filter((one) => one.credential === entry.placeholder && entry.placeholder !== undefined)
    let value: EnvironmentValue
    let about: string
    if (entry.service !== undefined) {
      if (service === undefined)
        throw located.fail(
          [...place, 'service'],
          undefinedName(
            'service',
            entry.service,
            services.map((one) => one.name),
          ),
        )
      value = { kind: 'service', service: entry.service }
      about = `Base URL of ${service.about}`
    } else if (entry.placeholder !== undefined) {
      if (bound.length === 0)
        throw located.fail(
          [...place, 'placeholder'],
          `no service of this target has the credential "${entry.placeholder}", so a placeholder would never be swapped`,
        )
      value = { kind: 'placeholder', credential: entry.placeholder }
      about = `Stands for the credential of ${bound.map((one) => one.name).join(', ')}; send it there as if it were the value`
    } else {
      value = { kind: 'literal', value: entry.value ?? '' }
      about = 'A setting of the target'
    }
    return { name, about: entry.about ?? about, value }
  })
}

/**
 * What a container's tools need to be told beside the target's own variables: the folder for temporary files that may
 * hold programs, and where packages come from, or that there is no such place.
 */
export function containerEnvironment(
  own: Plan['environment'],
  packages: Packages,
  runtime: Runtime,
): Plan['environment'] {
  const made: Plan['environment'][number][] = []
  const set = (name: string, value: string, about: string): void => {
    if (!own.some((one) => one.name === name)) made.push({ name, about, value: { kind: 'literal', value } })
  }
  const from = (name: string, { service, path }: Mirror, about: string): void => {
    made.push({ name, about, value: { kind: 'service', service, ...(path === '' ? {} : { path }) } })
  }
  const any = runtime === 'shell'
  set('TMPDIR', '/work/tmp', 'Temporary files')
  if (any || runtime === 'python' || packages.pip !== null) {
    set('PYTHONUNBUFFERED', '1', 'Output as it is written')
    set('PYTHONDONTWRITEBYTECODE', '1', 'No files beside the project')
    set('PIP_NO_INPUT', '1', 'pip asks nobody')
    set('PIP_NO_CACHE_DIR', '1', 'Nothing is kept for another run')
    set('PIP_DISABLE_PIP_VERSION_CHECK', '1', 'pip looks for no newer pip')
    if (packages.pip === null) set('PIP_NO_INDEX', '1', 'There is no index of Python packages')
    else from('PIP_INDEX_URL', packages.pip, 'Index of Python packages')
  }
  if (any || runtime === 'javascript' || runtime === 'typescript' || packages.npm !== null) {
    set('npm_config_update_notifier', 'false', 'npm looks for no newer npm')
    set('npm_config_audit', 'false', 'npm reports to nobody')
    set('npm_config_fund', 'false', 'npm asks for nothing')
    if (packages.npm === null) set('npm_config_offline', 'true', 'There is no registry of npm packages')
    else {
      from('npm_config_registry', packages.npm, 'Registry of npm packages')
      set('npm_config_replace_registry_host', 'always', 'Lock files made with another registry work')
    }
  }
  if (any || runtime === 'go' || packages.go !== null) {
    set('GOTOOLCHAIN', 'local', 'The Go of the image')
    set('CGO_ENABLED', '0', 'No C compiler is needed')
    set('GOSUMDB', 'off', 'go.sum says which modules are right')
    if (packages.go === null) set('GOPROXY', 'off', 'There is no proxy of Go modules')
    else from('GOPROXY', packages.go, 'Proxy of Go modules')
  }
  return [...made, ...own]
}

/** A name nothing is defined under, with the nearest one there is. */
export function undefinedName(what: string, name: string, known: readonly string[]): string {
  const guess = nearest(name, known)
  return `there is no ${what} "${name}"${guess === null ? '' : `; did you mean "${guess}"?`}`
}

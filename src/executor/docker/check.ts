import type { CheckFinding } from '../../credential/credential.ts'
import type { DockerSettings } from '../../execution/engine.ts'
import type { EngineInfo, EngineVersion } from './client.ts'

/** How to make the engine answer, for the operator. */
export function unreachable(settings: DockerSettings): CheckFinding {
  const { protocol } = new URL(settings.host)
  return {
    level: 'problem',
    what: `the container engine at ${settings.host} does not answer`,
    fix:
      protocol === 'unix:'
        ? 'Start Docker, let the user of the broker use its socket (that user is root on this machine then), or correct docker.host in writ.yaml.'
        : protocol === 'ssh:'
          ? 'As the user of the broker, run "ssh" to this host once: the key of the host must be known, a login must need no question, and "docker system dial-stdio" must work there.'
          : 'Start the engine there, and check that docker.tls in writ.yaml names certificates that both sides trust.',
  }
}

/**
 * What an engine is to be known for before anything runs in it. Limits that it cannot hold make it useless; known holes
 * are warned of, or refused where the settings are strict.
 */
export function findingsOf(
  settings: DockerSettings,
  version: EngineVersion,
  info: EngineInfo,
): readonly CheckFinding[] {
  const runtimes = Object.keys(info.Runtimes)
    .filter((name) => !name.startsWith('io.containerd.'))
    .sort()
  return [
    {
      level: 'ok',
      what: `containers run in Docker Engine ${version.Version}, with ${runtimes.join(', ')}`,
      fix: null,
    },
    ...lacking(info).map((what) => ({
      level: 'problem' as const,
      what: `the container engine cannot hold ${what} of a container`,
      fix: 'Use an engine on Linux with control groups; a rootless one needs version 2 with its controllers delegated to the user.',
    })),
    ...(hasOption(info, 'seccomp')
      ? []
      : [
          {
            level: 'problem' as const,
            what: 'the container engine has no filter of system calls',
            fix: 'Use an engine and a kernel with seccomp.',
          },
        ]),
    ...holes(version, info).map(({ what, fix }) => ({
      level: settings.strict ? ('problem' as const) : ('warning' as const),
      what,
      fix,
    })),
  ]
}

function lacking(info: EngineInfo): readonly string[] {
  return [
    ...(info.OSType === 'linux' ? [] : ['any limit']),
    ...(info.MemoryLimit === true ? [] : ['the memory']),
    ...(info.SwapLimit === true ? [] : ['the swap']),
    ...(info.PidsLimit === true ? [] : ['the number of processes']),
    ...(info.CpuCfsQuota === true ? [] : ['the processor time']),
  ]
}

function holes(version: EngineVersion, info: EngineInfo): readonly { readonly what: string; readonly fix: string }[] {
  const found: { what: string; fix: string }[] = []
  const engine = numbers(version.Version)
  if (engine === null || before(engine, [25, 0, 5]))
    found.push({
      what: `Docker Engine ${version.Version} is older than 25.0.5 (CVE-2024-29018 and all that was mended since)`,
      fix: 'Upgrade Docker Engine.',
    })
  // An engine lists runc whether it is there or not, and tells the version of its default runtime alone.
  const runtime = info.DefaultRuntime
  const told = (version.Components ?? []).find(({ Name }) => Name === runtime)?.Version ?? 'of no known version'
  if (runtime === 'runc' && !isMended(told))
    found.push({
      what: `runc ${told} lets a container out (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)`,
      fix: 'Upgrade runc to 1.2.8, 1.3.3 or 1.4, or give targets oci_runtime: runsc.',
    })
  if (runtime === 'crun' && !isMendedCrun(told))
    found.push({
      what: `crun ${told} lets an image write to files of the machine (CVE-2025-24965)`,
      fix: 'Upgrade crun to 1.20 or newer, or give targets oci_runtime: runsc.',
    })
  if (!hasOption(info, 'userns') && !hasOption(info, 'rootless'))
    found.push({
      what: 'root in a container of this engine is root of the machine',
      fix: 'Run the engine rootless, or with userns-remap.',
    })
  return found
}

/** runc's advisories of November 2025: mended in 1.2.8, 1.3.3 and 1.4.0-rc.3. */
function isMended(text: string): boolean {
  const version = numbers(text)
  if (version === null) return false
  const [major, minor, patch] = version
  if (major !== 1) return major > 1
  if (minor === 2) return patch >= 8
  if (minor === 3) return patch >= 3
  if (minor === 4 && patch === 0) {
    const candidate = /^v?1\.4\.0-rc\.?(\d+)/.exec(text)?.[1]
    return candidate === undefined ? /^v?1\.4\.0(?:$|[+~])/.test(text) : Number(candidate) >= 3
  }
  return minor >= 4
}

/** crun has two numbers where the third is zero. */
function isMendedCrun(text: string): boolean {
  const [, major = '', minor = ''] = /^v?(\d{1,6})\.(\d{1,6})(?:\.\d{1,6})?(?!\d)/.exec(text) ?? []
  return Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 20)
}

type Numbers = readonly [number, number, number]

function numbers(text: string): Numbers | null {
  const match = /^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?!\d)/.exec(text)
  return match === null ? null : [Number(match[1]), Number(match[2]), Number(match[3])]
}

function before(version: Numbers, floor: Numbers): boolean {
  const at = version.findIndex((number, index) => number !== floor[index])
  return at >= 0 && (version[at] ?? 0) < (floor[at] ?? 0)
}

/** Options are told as `name=userns,…`. */
function hasOption(info: EngineInfo, name: string): boolean {
  return (info.SecurityOptions ?? []).some((option) => option.split(',').includes(`name=${name}`))
}

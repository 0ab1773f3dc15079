import type { Target } from './entries.ts'
import type { Runtime } from './schema.ts'

/** Short enough for a small model, at most 420 characters, and all it needs to write code that runs the first time. */
export function guideOf(target: Target): string {
  if (target.executor === 'isolate') return isolate
  return target.executor === 'docker' ? container(target) : ''
}

const isolate =
  'ES modules or a plain script, TypeScript too, without Node, npm packages or a DOM. Global "writ": env, args, stdin, inputs, files(), readText(path), readBytes(path), writeFile("/out/NAME", data). Files under /out come back, the default export as return.json; console is the output. fetch reaches the services of the environment only; send a credential variable as it is, it is a placeholder.'

const programs: Readonly<Record<Runtime, string>> = {
  python: 'python3',
  javascript: 'node',
  typescript: 'node',
  shell: 'sh',
  go: 'go',
  rust: 'cargo',
}

function container(target: Target): string {
  const { packages, services, runtimes } = target
  const run = [...new Set(runtimes.map((runtime) => programs[runtime]))].join(', ')
  const managers = (['pip', 'npm', 'go'] as const).filter((manager) => packages[manager] !== null)
  const others = services.filter((one) => !Object.values(packages).some((mirror) => mirror?.service === one.name))
  return [
    `A fresh container with ${run}. Files lie in the working folder, which is writable; only files written to $WRIT_OUT come back.`,
    managers.length > 0
      ? `${managers.join(', ')} install from a mirror.`
      : 'No packages can be downloaded: vendor what the image lacks (wheelhouse/, node_modules/, vendor/).',
    others.length > 0
      ? 'No network but the base URLs in the environment, by plain HTTP; send a credential variable as it is, it is a placeholder.'
      : 'No network.',
  ].join(' ')
}

import { member, readJson } from '../manifest.ts'
import type { PlanStep } from '../plan.ts'
import type { Project, Recipe } from './recipe.ts'
import { folderWith, inRoot, lackingPackages, noTests, step } from './recipe.ts'

const testName = /(?:^|\/)(?:[^/]+[._-]test|test-[^/]+|test)\.[cm]?[jt]s$|(?:^|\/)test\/(?:.*\/)?[^/]+\.[cm]?[jt]s$/

/**
 * Package managers take a tarball from where the registry's answer or a lock file says, which is a host that no container
 * reaches. What stands between them and the mirror while they install says of each that it is there.
 */
const throughMirror = String.raw`const http = require("node:http"), { spawn } = require("node:child_process");
const { env: given } = process;
const mirror = given.npm_config_registry.replace(/\/$/, "");
let own;
const local = (text) => text.replace(/"tarball":\s*"[^"]*?\/((?:@[^"\/]+\/)?[^"\/]+\/-\/[^"]+)"/g, (_, path) => JSON.stringify("tarball") + ":" + JSON.stringify(own + "/" + path));
const server = http.createServer((asked, answer) => {
  const file = /\/((?:@[^\/]+\/)?[^\/]+\/-\/[^\/?]+\.tgz)$/.exec(asked.url);
  const headers = asked.headers.accept === undefined ? {} : { accept: asked.headers.accept };
  http.get(mirror + (file === null ? asked.url.replace(/%2f/i, "/") : "/" + file[1]), { headers }, (got) => {
    const type = got.headers["content-type"] || "application/octet-stream";
    if (!type.includes("json")) { answer.writeHead(got.statusCode, { "content-type": type }); got.pipe(answer); return }
    const parts = [];
    got.on("data", (part) => parts.push(part));
    got.on("end", () => { answer.writeHead(got.statusCode, { "content-type": type }); answer.end(local(Buffer.concat(parts).toString())) });
  }).on("error", () => answer.writeHead(502).end());
});
server.listen(0, "127.0.0.1", () => {
  own = "http://127.0.0.1:" + server.address().port;
  const env = { ...given, npm_config_registry: own + "/", YARN_NPM_REGISTRY_SERVER: own, YARN_UNSAFE_HTTP_WHITELIST: "127.0.0.1" };
  const [program, ...args] = process.argv.slice(1);
  const child = spawn(program, args, { stdio: "inherit", env });
  child.on("error", () => { console.error(program + ": not found in the image"); process.exit(127) });
  child.on("exit", (code) => process.exit(code === null ? 1 : code));
});`

/** Installing and testing, or building, a project with a package.json, or lone test files. */
export function nodeRecipe(project: Project): Recipe {
  const { kind, intent, paths, contents, args } = project
  const manifest = readJson(contents, 'package.json')
  if (kind.because !== 'package.json')
    return intent === 'build' || !paths.some((path) => testName.test(path))
      ? noTests('JavaScript')
      : { steps: [runner(args)] }
  const scripts = member(manifest, 'scripts')
  const script = scripts[intent === 'build' ? 'build' : 'test']
  const installing = installSteps(project)
  if ('missing' in installing) return installing
  const install = installing.steps
  if (typeof script === 'string' && !script.includes('no test specified'))
    return { steps: [...install, ...(intent === 'build' ? buildSteps(project) : [testStep(project, script)])] }
  if (intent === 'install_and_test' && paths.some((path) => testName.test(path)))
    return { steps: [...install, runner(args)] }
  const what = intent === 'build' ? 'a build' : 'tests'
  return {
    missing: [
      {
        what: `${what}: package.json has no "${intent === 'build' ? 'build' : 'test'}" script`,
        fix: 'Add the script and upload package.json again.',
      },
    ],
  }
}

function runner(args: readonly string[]): PlanStep {
  return step('Run the tests with node --test', 'node', '--test', '--test-reporter=tap', ...args)
}

/** What builds leave by custom comes back; a folder that is there already is the caller's own. */
function buildSteps({ kind, args, paths }: Project): readonly PlanStep[] {
  const tool = kind.tool ?? 'npm'
  const folders = ['dist', 'build'].filter((folder) => !paths.some((path) => path.startsWith(`${folder}/`)))
  return [
    step(`Build with ${tool}`, tool, 'run', 'build', ...(args.length === 0 ? [] : ['--', ...args])),
    ...(folders.length === 0
      ? []
      : [
          step(
            `Keep ${folders.join(' and ')}, where there is such a folder`,
            'sh',
            '-c',
            'for folder; do [ ! -d "$folder" ] || cp -R "$folder" "$WRIT_OUT"/ || exit 1; done',
            'sh',
            ...folders,
          ),
        ]),
  ]
}

/** A lone runner that can write a report is asked for one; of other scripts only the output is known. */
function testStep({ kind, args }: Project, script: string): PlanStep {
  const tool = kind.tool ?? 'npm'
  const plain = !/[&|;<>$`(){}\\"'*?\n]/.test(script)
  const report =
    plain && /^(?:npx )?vitest(?: run)?(?: |$)/.test(script)
      ? ['--reporter=default', '--reporter=json', '--outputFile.json=/out/vitest.json']
      : plain && /^(?:npx )?jest(?: |$)/.test(script)
        ? ['--json', '--outputFile=/out/jest.json']
        : []
  const more = [...report, ...args]
  return step(`Run the tests with ${tool} test`, tool, 'run', 'test', ...(more.length === 0 ? [] : ['--', ...more]))
}

/** Vendored modules need no installing; an offline cache in the project serves like a mirror. */
function installSteps({ kind, paths, contents, packages }: Project): Recipe {
  const manifest = readJson(contents, 'package.json')
  const asked = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((name) =>
    Object.entries(member(manifest, name)),
  )
  const workspaces = manifest !== null && Object.hasOwn(manifest, 'workspaces')
  if (
    (manifest !== null && asked.length === 0 && !workspaces) ||
    paths.some((path) => path.startsWith('node_modules/'))
  )
    return { steps: [] }
  const tool = kind.tool ?? 'npm'
  const locked = inRoot(paths, 'package-lock.json') || inRoot(paths, 'npm-shrinkwrap.json')
  const argv = tool === 'npm' ? ['npm', locked ? 'ci' : 'install'] : (kind.install[0] ?? [tool, 'install'])
  const title = `Install dependencies with ${tool}`
  if (packages.npm !== null) return { steps: [step(title, 'node', '-e', throughMirror, ...argv)] }
  const cache = tool === 'npm' ? folderWith(paths, ['npm-cache', '.npm-cache'], /^_cacache\//) : null
  if (cache !== null) return { steps: [step(title, ...argv, '--offline', '--cache', cache)] }
  const away = asked.flatMap(([name, version]) =>
    typeof version === 'string' && !/^(?:file|link|workspace|portal):/.test(version) ? [`${name}@${version}`] : [],
  )
  if (away.length > 0) return lackingPackages(away, 'node_modules/')
  return { steps: [step(title, ...argv)] }
}

import type { Json, JsonObject } from '../../digest.ts'
import { testRequirements } from '../detect.ts'
import { member, readToml } from '../manifest.ts'
import type { PlanStep } from '../plan.ts'
import type { Project, Recipe } from './recipe.ts'
import { asPath, folderWith, inRoot, noBuild, noTests, step } from './recipe.ts'

const venv = '/work/venv'
const inVenv = `${venv}/bin/python`
const testGroups = ['test', 'tests', 'testing', 'dev']

/** Without uv or poetry: their lock files name each version, which is all that pip needs to take the same. */
const pins = String.raw`import sys
try: import tomllib
except ImportError: from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as lock: packages = tomllib.load(lock).get("package", [])
names = [p["name"] + "==" + p["version"] for p in packages if "version" in p and not {"editable", "virtual", "directory", "path"} & set(p.get("source", {}))]
with open(sys.argv[2], "w") as out: out.write("\n".join(names) + "\n")
print(len(names), "versions taken from", sys.argv[1])`

/** Says of everything at once what pip would say of the first only. */
const lacking = String.raw`import sys, re, importlib.metadata as installed
from pip._vendor.packaging.requirements import Requirement, InvalidRequirement
def lines(path):
    try: text = open(path, encoding="utf-8").read()
    except OSError: return
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line.startswith(("-r ", "--requirement ")): yield from lines(line.split(None, 1)[1])
        elif line and not line.startswith("-"): yield line.split(" --hash")[0].rstrip("\\ ")
wanted = [line for arg in sys.argv[1:] for line in (lines(arg[1:]) if arg.startswith("@") else [arg])]
missing = []
for text in wanted:
    try: one = Requirement(text)
    except InvalidRequirement: continue
    if one.marker is not None and not one.marker.evaluate({"extra": ""}): continue
    try: have = installed.version(one.name)
    except installed.PackageNotFoundError: missing.append(f"{text}: the image has no {one.name}")
    else:
        if not one.specifier.contains(have, prereleases=True): missing.append(f"{text}: the image has {one.name} {have}")
for line in missing: print("missing package", line, file=sys.stderr)
if missing: print("There is no package mirror and no vendored file for these. Change what the project asks for, vendor wheels in wheelhouse/, or ask the operator for a target with a mirror or another image.", file=sys.stderr)
sys.exit(1 if missing else 0)`

/** pytest where the image or the project brings it, else what Python has. */
const eitherRunner =
  'if "$0" -c "import pytest" 2>/dev/null; then exec "$0" -m pytest --junitxml=/out/junit.xml "$@"; else exec "$0" -m unittest discover -v "$@"; fi'

interface Needs {
  /** `-r FILE`, `.`, and requirements by name, as pip takes them. */
  readonly arguments: readonly string[]
  /** The same for the check of what is missing: `@FILE` and requirements. */
  readonly names: readonly string[]
  readonly what: readonly string[]
}

/** Installing and testing, or building, a Python project. */
export function pythonRecipe(project: Project): Recipe {
  const { kind, intent, paths, contents, args } = project
  const manifest = readToml(contents, 'pyproject.toml')
  const packaged = isPackage(paths, manifest)
  const source = sourceOf(project)
  if (intent === 'build') {
    if (!packaged) return noBuild('Python')
    return {
      steps: [
        step('Make a virtual environment', 'python3', '-m', 'venv', '--system-site-packages', '--without-pip', venv),
        step(
          'Build a wheel',
          inVenv,
          '-m',
          'pip',
          'wheel',
          '--no-deps',
          '--wheel-dir',
          '/out',
          ...source,
          ...args,
          '.',
        ),
      ],
    }
  }
  const hasTests = kind.test !== null || paths.some((path) => /(?:^|\/)(?:test_[^/]*|[^/]*_test)\.py$/.test(path))
  if (!hasTests) return noTests('Python')
  const needs = needsOf(project, manifest, packaged)
  const installs = needs.arguments.length > 0
  const python = installs ? inVenv : 'python3'
  const steps: PlanStep[] = []
  if (installs) {
    const lock = ['uv.lock', 'poetry.lock'].find((name) => inRoot(paths, name))
    steps.push(
      step('Make a virtual environment', 'python3', '-m', 'venv', '--system-site-packages', '--without-pip', venv),
    )
    if (lock !== undefined)
      steps.push(step(`Take the versions of ${lock}`, python, '-c', pins, lock, '/work/tmp/pins.txt'))
    if (project.packages.pip === null && wheels(paths) === null && needs.names.length > 0)
      steps.push(step('Check that the image has every package', python, '-c', lacking, ...needs.names))
    const pinned = lock === undefined ? [] : ['--constraint', '/work/tmp/pins.txt']
    steps.push(
      step(
        `Install ${needs.what.join(' and ')}`,
        python,
        '-m',
        'pip',
        'install',
        ...source,
        ...pinned,
        ...needs.arguments,
      ),
    )
  }
  const pytest = kind.test?.includes('pytest') === true
  steps.push(
    pytest
      ? step('Run the tests with pytest', python, '-m', 'pytest', '--junitxml=/out/junit.xml', ...args)
      : step(
          'Run the tests with pytest, or unittest where there is no pytest',
          'sh',
          '-c',
          eitherRunner,
          python,
          ...args,
        ),
  )
  return { steps }
}

/** Whether the project itself is something to install; a table of dependencies alone is not. */
function isPackage(paths: readonly string[], manifest: JsonObject | null): boolean {
  if (inRoot(paths, 'setup.py')) return true
  if (manifest === null) return false
  const poetry = member(member(manifest, 'tool'), 'poetry')
  if (poetry['package-mode'] === false) return false
  return (
    Object.hasOwn(manifest, 'build-system') ||
    Object.keys(poetry).length > 0 ||
    (Object.hasOwn(manifest, 'project') && paths.some((path) => path.startsWith('src/') && path.endsWith('.py')))
  )
}

/** Where pip finds packages: vendored files first; a mirror by the environment; else only what the image holds. */
function sourceOf({ paths, packages }: Project): readonly string[] {
  const folder = wheels(paths)
  return [
    ...(packages.pip === null ? ['--no-index', '--no-build-isolation'] : []),
    ...(folder === null ? [] : ['--find-links', folder]),
  ]
}

function wheels(paths: readonly string[]): string | null {
  return folderWith(paths, ['wheelhouse', 'wheels', 'vendor'], /^[^/]+\.(?:whl|tar\.gz|zip)$/)
}

function needsOf({ paths, contents }: Project, manifest: JsonObject | null, packaged: boolean): Needs {
  const files = ['requirements.txt', ...testRequirements].filter((name) => inRoot(paths, name))
  const groups = member(manifest, 'dependency-groups')
  const poetry = member(member(manifest, 'tool'), 'poetry')
  const grouped = [
    ...testGroups.flatMap((name) => (Object.hasOwn(groups, name) ? strings(groups[name]) : [])),
    ...testGroups.flatMap((name) => Object.keys(member(member(member(poetry, 'group'), name), 'dependencies'))),
    ...Object.keys(member(poetry, 'dev-dependencies')),
  ].filter((name) => name !== 'python')
  const optional = member(member(manifest, 'project'), 'optional-dependencies')
  const extras = testGroups.filter((name) => Object.hasOwn(optional, name))
  const declared = member(manifest, 'project')
  const own = packaged ? [extras.length === 0 ? '.' : `.[${extras.join(',')}]`] : []
  const named = packaged
    ? []
    : [
        ...strings(declared['dependencies']),
        ...extras.flatMap((name) => strings(optional[name])),
        ...Object.keys(member(poetry, 'dependencies')).filter((name) => name !== 'python'),
      ]
  // A file that asks for nothing needs no installing; one too long to be read may.
  const asking = files.filter((name) => {
    const text = contents.get(name)
    return text === undefined || /^[ \t]*[^#\s]/m.test(text)
  })
  return {
    arguments: [...asking.flatMap((name) => ['-r', name]), ...own, ...named, ...grouped],
    names: [
      ...asking.map((name) => `@${asPath(name)}`),
      ...(packaged
        ? [...strings(declared['dependencies']), ...extras.flatMap((name) => strings(optional[name]))]
        : named),
      ...grouped,
    ],
    what: [
      ...asking,
      ...(own.length > 0 ? ['the project'] : []),
      ...(named.length > 0 ? ['its dependencies'] : []),
      ...(grouped.length > 0 ? ['its test dependencies'] : []),
    ],
  }
}

/** A requirement is an argument of pip: one that looks like an option is none. */
function strings(value: Json | undefined): readonly string[] {
  return Array.isArray(value)
    ? (value as readonly Json[]).filter((one): one is string => typeof one === 'string' && /^[A-Za-z0-9]/.test(one))
    : []
}

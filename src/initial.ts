import { configName } from './config.ts'

/** The texts `writ init` writes, by file name; with targets for containers where they are asked for. */
export function initialFiles(docker = false): ReadonlyMap<string, string> {
  return new Map([
    [configName, initialConfig],
    [
      catalogName,
      docker
        ? initialCatalog.replace(comment, `${containerComment}${[...dockerTargets.values()].join('')}\n${comment}`)
        : initialCatalog,
    ],
  ])
}

export const catalogName = 'catalog.yaml'

const containerComment = '  # Each run gets a container of its own, from an image that "writ images build" makes.\n'

const target = (
  name: string,
  about: string,
  runtimes: string,
  limits: { readonly cpu_s: number; readonly memory_mb: number },
): readonly [string, string] => [
  name,
  `  ${name}:
    about: ${about}, in a closed container without network
    labels: { env: sandbox }
    executor: docker
    image: writ/${name}
    runtimes: [${runtimes}]
    intents: [run_script, install_and_test, build]
    limits: { wall_s: 300, cpu_s: ${limits.cpu_s}, memory_mb: ${limits.memory_mb} }
`,
]

/** What `--with docker` puts under `targets`, by name: text two spaces deep. */
export const dockerTargets: ReadonlyMap<string, string> = new Map([
  target('python', 'Python with pytest', 'python, shell', { cpu_s: 120, memory_mb: 512 }),
  target('node', 'Node with npm', 'javascript, shell', { cpu_s: 120, memory_mb: 768 }),
  target('go', 'Go', 'go, shell', { cpu_s: 240, memory_mb: 1024 }),
  target('shell', 'A shell with git, curl, jq and make', 'shell', { cpu_s: 120, memory_mb: 256 }),
])

const initialConfig = `# Configuration of this Writ. Paths are relative to this file; docs/config.md explains every key.

# What may be asked for: targets, credentials, intents.
catalog: catalog.yaml
# Ledger, artifacts, sockets. Back it up together with the keys.
data: .writ
# Signing keys of the receipts, made by "writ init".
keys: keys
# Credential values, encrypted; set with "writ credentials set NAME".
credentials: credentials

# Policy packs. A guard only refuses and narrows; a grant pack lets things be. Without any, nothing runs.
policies:
  - { pack: org, layer: org, kind: guard, path: policies/org }
  - { pack: starter, layer: team, kind: grant, path: policies/starter }

# Whoever can open the local socket acts as this subject. Roles mean what the policies say.
local:
  subject: local-user
  roles: [developer, operator]

# People who may answer approvals. "writ approvals enroll NAME" makes a key and adds an entry here.
approvers: []
`

/** Where the catalog's example begins. */
const comment = '# A service with a token.'

const initialCatalog = `# What callers may name. They see names, meanings and intents; never URLs, images or values.
# docs/catalog.md explains every key.

targets:
  # The starter policy allows this one at once.
  sandbox:
    about: A closed sandbox for JavaScript and TypeScript, without network
    labels: { env: sandbox }
    executor: isolate
    intents: [run_script]

  # The organisation policy asks a second person before anything runs here: "env: production" is what it looks at.
  production:
    about: The same sandbox under the rules of production
    labels: { env: production }
    executor: isolate
    intents: [run_script]

${comment} The code sees a base URL and a placeholder; the gateway holds the URL and the value.
#
#  orders:
#    about: The orders API of staging
#    labels: { env: staging }
#    executor: isolate
#    intents: [run_script]
#    services:
#      orders: { url: "https://orders.staging.example", about: Orders API, credential: orders-token }
#    environment:
#      ORDERS_URL: { service: orders }
#      ORDERS_TOKEN: { placeholder: orders-token }
#    limits: { wall_s: 120 }
#
# credentials:
#   orders-token:
#     source: { file: orders-token }      # set the value with: writ credentials set orders-token
#     inject: { bearer: true }
`

import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { newPlaceholder } from '../../../src/credential/placeholder.ts'
import { Secret } from '../../../src/credential/secret.ts'
import type { Plan } from '../../../src/plan/plan.ts'
import type { Generation } from '../../../src/policy/policy.ts'
import { openEcho } from '../../e2e/canary/echo.ts'
import { needlesOf, sweepFolder } from '../../e2e/canary/sweep.ts'
import { listenToEvents } from '../../e2e/docker-canary/engine.ts'
import { forgedPack, generation } from '../../policy/fixtures/pack.ts'
import { answerOf, forge, granting } from '../../policy/fixtures/wasm.ts'
import type { Engine } from '../../servers/engine.ts'

/*
 * The invariant of every attack: each run holds a credential and has used it before the
 * attack begins, so that whatever the attack gets at could be the canary; and it is in no sink at the end.
 */

const name = 'vault'
const file = 'use-credential.py'

/** Calls the service that gives back what it got, in every spelling, and leaves the answer for the attack to find. */
const script = `import os, socket, sys
with socket.create_connection(("127.0.0.1", 3128)) as end:
    end.sendall(("POST /${name}/ HTTP/1.1\\r\\nHost: 127.0.0.1:3128\\r\\nX-Vault-Token: " + os.environ["VAULT_TOKEN"] + "\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n").encode())
    said = b""
    while part := end.recv(65536):
        said += part
open("/work/said", "wb").write(said)
sys.stderr.buffer.write(said)
`

/** A credential for runs to hold, and the service it is good for. */
export interface Canary {
  /** Of a plan. */
  readonly plan: Pick<Plan, 'services' | 'credentials'>
  readonly environment: Plan['environment']
  readonly placeholders: Readonly<Record<string, string>>
  readonly secrets: readonly Secret[]
  /** Lets every request through. */
  readonly generation: Generation
  /** The step of a run that uses the credential. */
  readonly step: { readonly files: Readonly<Record<string, string>>; readonly argv: readonly string[] }
  watch(hostPid: number): Watch
  close(): Promise<void>
}

/** One run, from before its start. */
export interface Watch {
  /** Looks at what the engine has of a container that runs. */
  look(container: string): Promise<void>
  /** Once the run is over; `told` is all that came of it, by what it is. */
  end(told: Readonly<Record<string, Uint8Array | string>>): Found
}

export interface Found {
  /** Whether the service was given the real value. */
  readonly used: boolean
  /** Where the canary was found, in whatever spelling; never its value. */
  readonly leaks: readonly string[]
  /** How many containers were looked at while they ran. */
  readonly looked: number
  /** By how many megabytes the run host was larger at its largest than before the run. */
  readonly growthMb: number
}

export async function openCanary(engine: Engine): Promise<Canary> {
  const value = `${randomBytes(9).toString('base64')}"/<+${randomBytes(9).toString('base64url')}&~`
  const needles = needlesOf({ [name]: value })
  const echo = await openEcho([value])
  const events = listenToEvents(engine.host)
  const { DockerRootDir: root } = (await engine.ask('GET', '/info')) as { readonly DockerRootDir: string }
  const placeholder = newPlaceholder()
  const url = `http://127.0.0.1:${String(echo.port)}`
  return {
    plan: {
      services: [{ name, about: '', url, credential: name, addresses: ['127.0.0.1/32'], ca: null }],
      credentials: [
        {
          name,
          source: { kind: 'file', ref: name },
          inject: { kind: 'header', header: 'X-Vault-Token', prefix: '' },
          lane: 'placeholder',
          exposure: 'none',
        },
      ],
    },
    environment: [
      { name: 'VAULT_ADDR', about: '', value: { kind: 'service', service: name } },
      { name: 'VAULT_TOKEN', about: '', value: { kind: 'placeholder', credential: name } },
    ],
    placeholders: { [name]: placeholder },
    secrets: [Secret.ingest(name, value)],
    generation: generation(1, [
      forgedPack({ pack: 'org', layer: 'org', kind: 'grant' }, forge({ answer: answerOf(granting) })),
    ]),
    step: { files: { [file]: script }, argv: ['python3', file] },
    watch(hostPid) {
      const leaks = new Set<string>()
      const find = (where: string, bytes: Uint8Array | string): void => {
        for (const found of needles.in(Buffer.from(bytes))) leaks.add(`${found} in ${where}`)
      }
      let looked = 0
      echo.arrived.clear()
      const from = events.text().length
      // The largest size is counted from here on.
      writeFileSync(`/proc/${String(hostPid)}/clear_refs`, '5')
      const before = sizeMb(hostPid, 'VmRSS')
      return {
        async look(container) {
          try {
            find('the inspection', JSON.stringify(await engine.ask('GET', `/containers/${container}/json`)))
            for (const hit of sweepFolder(join(root, 'containers', container), needles)) leaks.add(hit)
            looked++
          } catch {
            // It ended meanwhile.
          }
        },
        end(told) {
          for (const [where, bytes] of Object.entries(told)) find(where, bytes)
          find('the events of the engine', events.text().slice(from))
          for (const what of ['cmdline', 'environ'])
            find(`${what} of the run host`, readFileSync(`/proc/${String(hostPid)}/${what}`))
          return {
            used: echo.arrived.has(value),
            leaks: [...leaks],
            looked,
            growthMb: sizeMb(hostPid, 'VmHWM') - before,
          }
        },
      }
    },
    async close() {
      events.close()
      await echo.close()
    },
  }
}

function sizeMb(pid: number, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${String(pid)}/status`, 'utf8')
  return Number(new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? Number.NaN) / 1024
}

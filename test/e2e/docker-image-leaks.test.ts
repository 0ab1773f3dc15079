import { randomBytes } from 'node:crypto'
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Docker from 'dockerode'
import { extract } from 'tar-stream'
import { afterAll, expect, it, vi } from 'vitest'
import { engine } from '../servers/engine.ts'
import { needlesOf } from './canary/sweep.ts'
import { useWorld } from './world.ts'

/*
 * L-13: what is in the environment and in the folders of who builds an image is in no layer, no history and no
 * configuration of it.
 */

vi.setConfig({ testTimeout: 120_000 })

const canaries = { variable: randomBytes(18).toString('base64url'), file: randomBytes(18).toString('base64url') }
const needles = needlesOf(canaries)
const images = ['base', 'python', 'node', 'go', 'shell'].map((name) => `writ/${name}:latest`)
const found = await engine({ images: ['base:bookworm', ...images] })
const world = useWorld({ env: { API_TOKEN: canaries.variable, NPM_TOKEN: canaries.variable, BASE: canaries.variable } })
const tag = `writ-test-leaks-${randomBytes(4).toString('hex')}:latest`

afterAll(async () => {
  if (!('lacking' in found)) await found.ask('DELETE', `/images/${tag}?force=true`).catch(() => undefined)
})

/** The files of an image as it is saved, but the layers that are larger than any that Writ adds to a base. */
async function saved(docker: Docker, name: string): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>()
  const archive = (await docker.getImage(name).get()).pipe(extract())
  for await (const entry of archive) {
    if ((entry.header.size ?? 0) > 64 << 20) {
      entry.resume()
      continue
    }
    const parts: Buffer[] = []
    for await (const part of entry) parts.push(part as Buffer)
    files.set(entry.header.name, Buffer.concat(parts))
  }
  return files
}

it('what its builder knows is in no image [G-secret-nowhere]', async (ctx) => {
  if ('lacking' in found) return ctx.skip(found.lacking)
  appendFileSync(join(world.folder, 'writ.yaml'), `\ndocker: { host: "${found.host}" }\n`)
  mkdirSync(join(world.folder, '.docker'))
  for (const file of ['.npmrc', '.netrc', '.env', '.docker/config.json', 'writ-agent', 'Dockerfile'])
    writeFileSync(join(world.folder, file), canaries.file)
  const built = world.writ(['images', 'build', 'base', '--base', 'base:bookworm', '--tag', tag])
  expect(built).toMatchObject({ code: 0 })
  expect(needles.in(Buffer.from(built.out + built.err))).toEqual([])
  const files = await saved(new Docker({ socketPath: found.host.slice('unix://'.length) }), tag)
  const agent = [...files].filter(([, bytes]) => bytes.includes('writ-agent'))
  expect(agent.length).toBeGreaterThan(1)
  expect([...files].flatMap(([name, bytes]) => needles.in(bytes).map((what) => `${what} in ${name}`))).toEqual([])
})

it('no image of Writ tells a secret in its configuration or history', async (ctx) => {
  if ('lacking' in found) return ctx.skip(found.lacking)
  const secret =
    /PRIVATE KEY|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|npm_\w{36}|xox[abprs]-|hvs\.|(?:token|passw(?:or)?d|secret|api_?key|authorization)["']?\s*[=:]/i
  for (const image of images) {
    const told = [await found.ask('GET', `/images/${image}/json`), await found.ask('GET', `/images/${image}/history`)]
    expect([image, secret.exec(JSON.stringify(told))?.[0] ?? null]).toEqual([image, null])
  }
  expect(secret.test('{"Env":["API_TOKEN=x"]}')).toBe(true)
})

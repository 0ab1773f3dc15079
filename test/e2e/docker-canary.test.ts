import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { type Engine, engine } from '../servers/engine.ts'
import { credentialsOf, echoing, newCanary } from './canary/canary.ts'
import { type Echo, openEcho } from './canary/echo.ts'
import { needlesOf, sweepFolder } from './canary/sweep.ts'
import { final, type Line, openLine } from './crash/line.ts'
import { makePlace, type Place } from './crash/place.ts'
import { brokerOf, familyOf } from './crash/processes.ts'
import { type Events, listenToEvents, processesOf, sweepMemory, sweepSince } from './docker-canary/engine.ts'

const lanes = ['header', 'bearer'] as const
const canaries = { header: newCanary(), bearer: newCanary() }
const needles = needlesOf(canaries)
const planted = { planted: randomBytes(18).toString('base64url') }

/** Calls every service in every way, gives out all that can be read inside, then waits until it was looked at from outside. */
const program = `import base64, os, sys, urllib.request

seen = []
def say(*words):
    line = ' '.join(str(word) for word in words)
    seen.append(line)
    print(line, flush=True)
    print(line, file=sys.stderr, flush=True)

def call(lane, path, headers):
    url, token = os.environ[lane + '_URL'], os.environ[lane + '_TOKEN']
    request = urllib.request.Request(url + path, data=('token ' + token).encode(), headers=headers, method='POST')
    class Kept(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_): return None
    try:
        with urllib.request.build_opener(Kept).open(request, timeout=60) as answer:
            say(lane, path, answer.status, answer.getheaders(), answer.read().decode('utf8', 'replace'))
    except urllib.error.HTTPError as answer:
        say(lane, path, answer.code, answer.headers.items(), answer.read().decode('utf8', 'replace'))
    except Exception as error:
        say(lane, path, repr(error))

for lane in ('HEADER', 'BEARER'):
    token = os.environ[lane + '_TOKEN']
    given = {'x-vault-token': token} if lane == 'HEADER' else {'authorization': 'Bearer ' + token}
    for path in ('/', '/unauthorised', '/moved'):
        for headers in (given, {}):
            call(lane, path, headers)
for name, value in os.environ.items():
    say(name + '=' + value)
for pid in sorted(name for name in os.listdir('/proc') if name.isdigit()):
    for what in ('cmdline', 'environ', 'maps', 'status', 'mountinfo', 'limits', 'cgroup'):
        try:
            say('/proc/' + pid + '/' + what, open('/proc/' + pid + '/' + what, 'rb').read().decode('utf8', 'replace'))
        except OSError:
            pass
for top in ('/work', '/tmp', '/out', '/dev/shm', '/run', '/etc', '/home', '/root', '/var/tmp'):
    for folder, _, files in os.walk(top):
        for file in files:
            try:
                text = open(os.path.join(folder, file), 'rb').read(20000)
                if top in ('/work', '/tmp', '/out', '/dev/shm'):
                    say(os.path.join(folder, file), text.decode('utf8', 'replace'))
            except OSError:
                pass
everything = '\\n'.join(seen)
open('/out/all.txt', 'w').write(everything)
open('/out/hex.txt', 'w').write(everything.encode().hex())
open('/out/base64.txt', 'w').write(base64.b64encode(everything.encode()).decode())
open('/work/kept.txt', 'w').write(everything)
call('HEADER', '/hold', {'x-vault-token': os.environ['HEADER_TOKEN']})
`

describe.each(['runc', 'runsc'] as const)('a credential of a run in a container of %s', (runtime) => {
  const begun = Date.now()
  const temp = join(tmpdir(), `writ-canary-tmp-${randomBytes(6).toString('hex')}`)
  const said: string[] = []
  const told: string[] = []
  let lacking: string | null = null
  let found: Engine
  let echo: Echo
  let place: Place | null = null
  let line: Line
  let events: Events
  let root = ''

  beforeAll(async () => {
    const answer = await engine({ images: ['writ/python:latest'], runsc: runtime === 'runsc' })
    if ('lacking' in answer) {
      lacking = answer.lacking
      return
    }
    found = answer
    root = String(((await found.ask('GET', '/info')) as { readonly DockerRootDir?: string }).DockerRootDir)
    try {
      readdirSync(join(root, 'containers'))
    } catch {
      lacking = `the folder of the engine, ${root}, cannot be read: run the tests as root, with an engine of this machine`
      return
    }
    mkdirSync(temp)
    echo = await openEcho(Object.values(canaries))
    events = listenToEvents(found.host)
    place = makePlace({
      name: 'writ-canary-',
      config: `docker: { host: "${found.host}", warm: 1 }\n`,
      targets: `
  open:
    about: Services that echo
    labels: { env: staging }
    executor: docker
    image: writ/python
    ${runtime === 'runc' ? '' : 'container: { oci_runtime: runsc }'}
    intents: [run_script]
${echoing(lanes, echo.port)}    limits: { wall_s: 120, output_kb: 8192, artifact_kb: 16384, memory_mb: 256 }
`,
      credentials: credentialsOf(lanes),
      secrets: { 'header-token': canaries.header, 'bearer-token': canaries.bearer },
      env: { TMPDIR: temp },
    })
    line = openLine(place, (bytes) => said.push(bytes))
  }, 60_000)

  afterAll(async () => {
    if (place === null) return
    line.close()
    place.writ(['stop'])
    events.close()
    await echo.close()
    for (const folder of [place.root, temp]) rmSync(folder, { recursive: true, force: true })
  })

  it('[G-secret-nowhere] [G-placeholder-only] is in nothing the container holds or shows, in nothing the engine tells or writes, and in nothing Writ keeps', async (ctx) => {
    if (lacking !== null) return ctx.skip(lacking)
    if (place === null) throw new Error('there is no place')
    const held = echo.held()
    const submitted = await line.call('submit_task', {
      project_name: 'canary',
      goal: 'Give everything away',
      target_ref: 'open',
      execution_intent: 'run_script',
      inputs: { script: 'main.py' },
      files: [{ path: 'main.py', content: program }],
    })
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
    const execution = started['execution_id'] as string
    expect(started['error']).toBeUndefined()
    await Promise.race([held, pause(60_000)])

    // While it runs: what the engine knows, what root of the machine sees, an image made of it.
    const broker = brokerOf(place.configFile)
    const owner = /"owner":"([a-z0-9]+)"/.exec(broker === null ? '' : (familyOf(broker).host?.command ?? ''))?.[1]
    const filters = encodeURIComponent(JSON.stringify({ label: [`dev.writ.owner=${String(owner)}`] }))
    const list = (await found.ask('GET', `/containers/json?filters=${filters}`)) as readonly { readonly Id: string }[]
    expect(list.length).toBeGreaterThan(0)
    const images: string[] = []
    let placeholders = 0
    let memory = 0
    for (const { Id } of list) {
      for (const path of ['json?size=1', 'top', 'changes', 'stats?stream=false'])
        told.push(JSON.stringify(await found.ask('GET', `/containers/${Id}/${path}`).catch(String)))
      const made = (await found.ask('POST', `/commit?container=${Id}&pause=false`).catch(() => null)) as {
        readonly Id: string
      } | null
      // Not the one of the run, which is held: one that was only looked into.
      if (made === null) continue
      images.push(made.Id)
      for (const path of ['json', 'history'])
        told.push(JSON.stringify(await found.ask('GET', `/images/${made.Id}/${path}`)))
      for (const pid of processesOf(Id)) {
        const look = (bytes: Buffer): void => {
          if (bytes.includes('writ_ph_')) placeholders++
          for (const name of needles.in(bytes)) told.push(`${canaries.header} ${name} in the memory of ${String(pid)}`)
        }
        try {
          for (const file of ['cmdline', 'environ']) told.push(readFileSync(`/proc/${String(pid)}/${file}`, 'latin1'))
          memory += sweepMemory(pid, look)
        } catch {
          // One of the kernel in user space that ended meanwhile.
        }
      }
    }
    const files: string[] = []
    const during = sweepSince(root, begun, needles, files)
    echo.release()
    const status = await final(line, execution)
    expect([status['state'], status['reasons'] ?? null]).toEqual(['succeeded', null])
    let cursor = 'start'
    for (let page = 0; page < 400; page++) {
      const { log } = (await line.call('get_status', { execution_id: execution, cursor, max_bytes: 8192 })) as {
        readonly log?: { readonly cursor: string; readonly more: boolean }
      }
      if (log === undefined || !log.more) break
      cursor = log.cursor
    }
    const result = await line.call('get_result', { execution_id: execution })
    const kept = ((result['files'] ?? []) as readonly JsonObject[]).map((file) => file['path'] as string)
    expect(kept).toEqual(expect.arrayContaining(['all.txt', 'base64.txt', 'hex.txt']))
    for (const file of kept) await line.call('get_result', { execution_id: execution, file, max_bytes: 1_048_576 })
    const shown = ['executions show', 'executions show --json'].map((words) =>
      place?.writ([...words.split(' '), execution]),
    )
    for (const image of images) await found.ask('DELETE', `/images/${image}`)

    expect(images.length).toBeGreaterThan(0)
    // The services saw the values, the run saw answers, and the looks from outside saw something.
    expect(echo.arrived).toEqual(new Set(Object.values(canaries)))
    expect(said.join('').match(/writ_ph_/g)?.length).toBeGreaterThan(30)
    expect(placeholders).toBeGreaterThan(0)
    expect(memory).toBeGreaterThan(1 << 20)
    expect(files.some((file) => file.endsWith('config.v2.json'))).toBe(true)
    expect(events.text()).toContain('"Action":"start"')

    const hits = [
      ...during,
      ...sweepSince(root, begun, needles, files),
      ...sweepFolder(place.root, needles),
      ...sweepFolder(temp, needles),
      ...[
        ['the messages', said.join('')],
        ['what the engine told', told.join('\n')],
        ['the events', events.text()],
        ['what commands showed', shown.map((one) => `${String(one?.out)}${String(one?.err)}`).join('')],
      ].flatMap(([where, text = '']) => needles.in(Buffer.from(text)).map((name) => `${name} in ${String(where)}`)),
    ]
    expect(hits).toEqual([])
  }, 150_000)

  it('would be found there: in a container’s environment, by its inspection, its events and the folder of the engine', async (ctx) => {
    if (lacking !== null) return ctx.skip(lacking)
    const search = needlesOf(planted)
    const { Id } = (await found.ask('POST', '/containers/create', {
      Image: 'writ/python',
      Env: [`TOKEN=${planted.planted}`],
      Labels: { token: planted.planted },
    })) as { readonly Id: string }
    await pause(200)
    const inspected = JSON.stringify(await found.ask('GET', `/containers/${Id}/json`))
    const files = sweepSince(root, begun, search, [])
    await found.ask('DELETE', `/containers/${Id}?force=true`)
    expect(search.in(Buffer.from(inspected))).toContain('planted')
    expect(files.some((file) => file.endsWith('config.v2.json'))).toBe(true)
    expect(search.in(Buffer.from(events.text()))).toContain('planted')
    const mine = Buffer.from(planted.planted)
    let seen = false
    sweepMemory(process.pid, (bytes) => (seen ||= bytes.includes(mine)))
    expect(seen).toBe(true)
  }, 60_000)
})

import { execFileSync } from 'node:child_process'
import { test } from 'vitest'
import type { Executor } from '../../src/executor/executor.ts'
import { contained, newOwner, place } from '../executor/docker/place.ts'
import type { Place } from '../executor/docker/place.ts'
import { executorContract } from './executor.ts'
import type { Program } from './executor.ts'

/*
 * The suite that isolates pass, over containers of a real engine: the container's part of a plan is filled in here, as
 * the broker's catalog would.
 */

for (const { runtime, newer, name } of [
  { runtime: null, newer: false, name: 'docker, the default runtime' },
  { runtime: 'runsc', newer: false, name: 'docker, runsc' },
  { runtime: null, newer: true, name: 'docker, the default runtime of an engine that strict settings take' },
]) {
  const found = await place({ runsc: runtime !== null, newer })
  if ('lacking' in found) without(found.lacking)
  else contract(name, runtime, found, newer)
}

function without(why: string): void {
  test('keeps the contract of every executor in containers', (ctx) => ctx.skip(why))
}

function contract(name: string, runtime: string | null, found: Place, strict: boolean): void {
  executorContract(name, () => {
    const owner = newOwner()
    const inner = found.open({ owner, set: { warm: 1, strict } })
    const service = { name: 'vault', about: '', url: 'http://127.0.0.1:1', credential: null, addresses: [], ca: null }
    const executor: Executor = {
      kind: 'docker',
      isolation: inner.isolation,
      check: () => inner.check(),
      run(job, io) {
        const filled = { ...job, plan: { ...job.plan, services: [service] } }
        const prepared = contained({ job: filled, bytes: new Map() }, found.image, {
          oci_runtime: runtime,
          cpus_m: 1000,
        })
        return inner.run(prepared.job, io)
      },
      close: () => inner.close(),
    }
    return Promise.resolve({
      executor,
      program: (program) => {
        const path = `${program.does}${'code' in program ? program.code : ''}.py`
        return { files: { [path]: source(program) }, argv: ['python3', '-B', path] }
      },
      kill() {
        const script = killer(found.engine.host.slice('unix://'.length), owner, inner.waiting)
        execFileSync(process.execPath, ['--input-type=module', '-e', script])
      },
      async remains() {
        await inner.settled()
        return (await found.containers(owner)).filter((id) => !inner.waiting.includes(id))
      },
    })
  })
}

/** A program that kills an owner's containers but those that wait. */
function killer(socketPath: string, owner: string, waiting: readonly string[]): string {
  const filters = encodeURIComponent(JSON.stringify({ label: [`dev.writ.owner=${owner}`] }))
  return `import http from 'node:http'
const ask = (method, path) => new Promise((resolve, reject) => {
  const request = http.request({ socketPath: ${JSON.stringify(socketPath)}, method, path }, (answer) => {
    let text = ''
    answer.on('data', (part) => (text += part)).on('end', () => resolve(text))
  })
  request.on('error', reject).end()
})
const waiting = ${JSON.stringify(waiting)}
for (const { Id } of JSON.parse(await ask('GET', '/containers/json?filters=${filters}')))
  if (!waiting.includes(Id)) await ask('POST', '/containers/' + Id + '/kill')`
}

function source(program: Program): string {
  switch (program.does) {
    case 'print':
      return `import sys, urllib.request
print('${program.stdout}', flush=True); print('${program.stderr}', file=sys.stderr, flush=True)
urllib.request.urlopen('http://127.0.0.1:3128/vault/').read(); print('${program.after}')`
    case 'exit':
      return `raise SystemExit(${program.code})`
    case 'spin':
      return "print('begun', flush=True)\nwhile True: pass"
    case 'sleep':
      return "import time\nprint('begun', flush=True)\nwhile True: time.sleep(60)"
    case 'flood':
      return `import sys\nfor _ in range(${program.bytes / 1000}): sys.stdout.write('x' * 999 + '\\n')`
    case 'eat':
      return "a = []\nwhile True: a.append('x' * 1000000 + str(len(a)))"
    case 'copy':
      return `import os
os.makedirs(os.path.dirname('/out/${program.to}'), exist_ok=True)
open('/out/${program.to}', 'wb').write(open('${program.from}', 'rb').read())`
    case 'environment':
      return 'import json, os\nprint(json.dumps(dict(os.environ)))'
    case 'fetch':
      return `import urllib.request, urllib.error
try: r = urllib.request.urlopen(urllib.request.Request('${program.url}', data='${program.body}'.encode(), method='POST'))
except urllib.error.HTTPError as e: r = e
print(r.status, r.read().decode())`
    case 'leave':
      return `import os
for n in range(${program.count}): open(f'/out/{n}', 'wb').write(os.urandom(${program.bytes}))
print('made', flush=True)`
    case 'linger':
      return `import os, signal, socket, sys, time
for n in range(3):
  if os.fork() == 0:
    os.setsid()
    for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
    if os.fork() == 0:
      while True: time.sleep(0.005); print('still here', flush=True)
    time.sleep(60)
s = socket.create_connection(('127.0.0.1', 3128)); s.sendall(b'GET /x/ HTTP/1.1\\r\\n')
print('left', flush=True); os._exit(0)`
  }
}

import { readdirSync, readFileSync } from 'node:fs'
import { createIsolateExecutor } from '../../src/executor/isolate/isolate.ts'
import { executorContract } from './executor.ts'
import type { Program } from './executor.ts'

const owner = `contract${process.pid}`

executorContract('isolate', () => {
  const executor = createIsolateExecutor({ env: { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' }, owner })
  const busy = (): readonly number[] => workers().filter((pid) => !executor.waiting.includes(pid))
  return Promise.resolve({
    executor,
    program: (program) => {
      const path = `${program.does}${'code' in program ? program.code : ''}.js`
      return { files: { [path]: source(program) }, argv: [path] }
    },
    kill() {
      for (const pid of busy()) process.kill(pid, 'SIGKILL')
    },
    remains: () => Promise.resolve(busy().map(String)),
  })
})

function source(program: Program): string {
  switch (program.does) {
    case 'print':
      return `console.log('${program.stdout}'); console.error('${program.stderr}'); await fetch('http://127.0.0.1:3128/vault/'); console.log('${program.after}')`
    case 'exit':
      return `writ.exit(${program.code})`
    case 'spin':
      return `console.log('begun'); for (;;);`
    case 'sleep':
      return `console.log('begun'); await new Promise(() => {})`
    case 'flood':
      return `for (let i = 0; i < ${program.bytes / 1000}; i++) console.log('x'.repeat(999))`
    case 'eat':
      return 'const a = []; for (;;) a.push(new Array(1000).fill({}))'
    case 'copy':
      return `writ.writeFile('/out/${program.to}', writ.readBytes('${program.from}'))`
    case 'environment':
      return 'console.log(JSON.stringify(writ.env))'
    case 'fetch':
      return `const r = await fetch('${program.url}', { method: 'POST', body: '${program.body}' }); console.log(r.status + ' ' + (await r.text()))`
    case 'leave':
      return `for (let i = 0; i < ${program.count}; i++) writ.writeFile('/out/' + i, 'x'.repeat(${program.bytes})); console.log('made')`
    case 'linger':
      return `setInterval(() => console.log('still here'), 5); setTimeout(() => {}, 60000); fetch('http://127.0.0.1:3128/x/').catch(() => {}); console.log('left'); writ.exit(0)`
  }
}

/** Worker processes this test process started. */
function workers(): readonly number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8')
      return Number(parent) === process.pid && state !== 'Z' && command.includes('isolate/worker') ? [Number(name)] : []
    } catch {
      return []
    }
  })
}

import { dirname } from 'node:path'
import { startDockerd, stopDockerd } from './docker.ts'

// `start` prints the address of a new engine, `newer` that of a newer one; `stop HOST` ends it. What docker.sh calls.
const [command, host = ''] = process.argv.slice(2)
if (command === 'start') process.stdout.write(`${(await startDockerd()).host}\n`)
else if (command === 'newer') process.stdout.write(`${(await startDockerd({ newer: true })).host}\n`)
else if (command === 'stop' && /^unix:\/\/\/.*\/writ-docker-[^/]+\/docker\.sock$/.test(host))
  await stopDockerd(dirname(host.slice('unix://'.length)))
else {
  process.stderr.write('usage: control.ts start | newer | stop HOST\n')
  process.exit(2)
}

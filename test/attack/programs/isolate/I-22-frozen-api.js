'use strict'
const attempts = [
  () => { writ.env = {} },
  () => { writ.env.VAULT_TOKEN = 'x' },
  () => { globalThis.writ = {} },
  () => { delete globalThis.writ },
  () => { writ.args.push('x') },
  () => { Object.defineProperty(writ, 'files', { value: 1 }) },
  () => { Object.setPrototypeOf(writ.env, null) },
]
for (const attempt of attempts) {
  try {
    attempt()
    console.log('changed')
  } catch (error) {
    console.log(error.name)
  }
}

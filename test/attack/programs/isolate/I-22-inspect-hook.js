const custom = Symbol.for('nodejs.util.inspect.custom')
let seen = 'nothing'
const trap = {
  [custom](depth, options, inspect) {
    seen = typeof options + typeof inspect + String(inspect?.constructor?.('return typeof process')())
    return 'x'
  },
  toString() {
    return 'text'
  },
}
console.log(trap)
console.log('%s %j %o', trap, trap, new Proxy({}, { get: (_t, name) => (seen = `get ${String(name)}`), ownKeys: () => { throw new Error('no keys') } }))
console.log(seen.startsWith('get') || seen === 'nothing')

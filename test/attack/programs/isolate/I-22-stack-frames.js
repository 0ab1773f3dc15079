Error.prepareStackTrace = (_error, frames) => frames
const steal = () => {
  const found = []
  for (const frame of new Error().stack ?? [])
    for (const get of ['getThis', 'getFunction', 'getTypeName', 'getFileName', 'getEvalOrigin']) {
      const value = frame[get]?.()
      if (typeof value === 'function' && value !== steal) found.push(value.name)
      if (typeof value === 'object' && value !== null && value !== globalThis) found.push(get)
      if (typeof value === 'string' && value.includes('/')) found.push(value)
    }
  return found
}
const seen = []
Object.prototype.toJSON = function () {
  seen.push(...steal())
  return 'x'
}
try {
  console.log({ toString: () => (seen.push(...steal()), 'x') })
  await fetch({ toString: () => (seen.push(...steal()), 'http://127.0.0.1:3128/s/') })
  writ.writeFile({ toString: () => (seen.push(...steal()), '/out/x') }, 'x')
} catch (error) {
  seen.push(...steal())
}
delete Object.prototype.toJSON
Error.prepareStackTrace = undefined
console.log([...new Set(seen.filter((name) => !['toString', 'toJSON', ''].includes(name)))].join() || 'nothing')

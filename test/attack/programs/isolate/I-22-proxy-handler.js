const got = []
let inside = false
const handler = new Proxy({}, {
  get(_target, trap) {
    return (...args) => {
      for (const arg of inside ? [] : args) {
        inside = true
        try {
          const value = arg?.constructor?.constructor?.('return typeof process + typeof require')()
          if (value !== undefined) got.push(value)
        } catch {}
        inside = false
      }
      return Reflect[trap](...args)
    }
  },
})
const target = new Proxy(function () {}, handler)
for (const use of [
  () => console.log(target),
  () => new URL(target),
  () => fetch(target, target),
  () => new Headers(target),
  () => structuredClone(target),
  () => setTimeout(target, target),
  () => queueMicrotask(target),
  () => writ.writeFile(target, target),
  () => writ.files(target),
]) {
  try {
    await use()
  } catch {}
}
console.log([...new Set(got)].join() || 'nothing')

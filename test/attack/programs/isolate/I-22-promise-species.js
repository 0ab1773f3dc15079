const got = []
const check = (value) => {
  try {
    got.push(String(value?.constructor?.constructor?.('return typeof process')?.()))
  } catch (error) {
    got.push(error.name)
  }
}
class Evil extends Promise {
  static get [Symbol.species]() {
    return function (executor) {
      executor(check, check)
    }
  }
}
const answer = fetch('http://127.0.0.1:3128/refuse/')
answer.constructor = Evil
try {
  answer.then(check, check)
  await answer
} catch (error) {
  check(error)
}
const failing = async () => {
  const error = new Error()
  error.name = Symbol()
  return error.stack
}
await failing().catch(check)
const generator = (async function* () {
  yield* { [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: null }), get return() { return null } }) }
})()
await generator.return({ get then() { check(this); return undefined } })
console.log([...new Set(got)].join())

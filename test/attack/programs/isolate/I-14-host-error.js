try {
  await fetch('http://127.0.0.1:3128/service/')
} catch (error) {
  console.log(error.name, error.message)
  console.log(error.stack.split('\n').filter((line) => !line.includes('writ:prelude')).join())
  console.log(Object.getOwnPropertyNames(error).join(), error.cause)
}
try {
  writ.readText('x'.repeat(5000))
} catch (error) {
  console.log(error.message.length < 300, error.stack.includes('worker'))
}

import done from 'writ:done'
console.log(done)

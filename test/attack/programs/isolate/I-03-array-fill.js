new Array(2 ** 27).fill(1)
console.log('survived')

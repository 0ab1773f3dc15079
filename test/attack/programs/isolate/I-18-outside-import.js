import secret from '../../../../etc/passwd'
console.log(secret)

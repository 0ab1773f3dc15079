#!/usr/bin/env node
console.log("line separator".length)

// Randomness: what a warm node must draw anew when it wakes in one of many copies of its memory.
'use strict';

const fs = require('node:fs');
const v8 = require('node:v8');

/** A generator for Math.random with 128 bits of state from the kernel: V8's own is seeded once, before the snapshot. */
function freshRandom() {
  const seed = new Uint32Array(4);
  entropy(Buffer.from(seed.buffer));
  seed[3] |= 1;
  let [a, b, c, d] = seed;
  // xoshiro128**. Source: https://prng.di.unimi.it/xoshiro128starstar.c
  const next = () => {
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  return { random() { return ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000; } }.random;
}

let kernel = -1;

function entropy(bytes) {
  if (kernel < 0) kernel = fs.openSync('/dev/urandom');
  for (let at = 0; at < bytes.length;) at += fs.readSync(kernel, bytes, at, bytes.length - at, null);
}

/** Whatever was drawn before the snapshot is drawn anew. OpenSSL does so itself when the clock has leapt. */
function renew() {
  setRandom(freshRandom());
  const seed = new Int32Array(1);
  entropy(Buffer.from(seed.buffer));
  // For contexts that the snippet makes: V8 would seed them from a state that other clones have too.
  v8.setFlagsFromString(`--random-seed=${(seed[0] & 0x7fffffff) | 1}`);
}

function setRandom(random) {
  Object.defineProperty(Math, 'random', { value: random, writable: true, enumerable: false, configurable: true });
}

module.exports = { renew };

// rounds: 10
(() => {
  const compose = (...fs) => x => fs.reduceRight((y, f) => f(y), x);
  const curry = f => function next(...args) { return args.length >= f.length ? f(...args) : (...more) => next(...args, ...more); };
  const add = curry((a, b, c) => a + b + c);
  function* take(n, it) { let i = 0; for (const x of it) { if (i++ >= n) return; yield x; } }
  function* naturals() { for (let i = 0; ; i++) yield i; }
  const cache = new Map();
  const lru = { get(k) { if (!cache.has(k)) return; const v = cache.get(k); cache.delete(k); cache.set(k, v); return v; },
    put(k, v) { cache.set(k, v); if (cache.size > 16) cache.delete(cache.keys().next().value); } };
  let hits = 0;
  for (let i = 0; i < 400; i++) { const k = `k${(i * i) % 23}`; if (lru.get(k) !== undefined) hits++; else lru.put(k, i); }
  let caught = 0;
  for (let i = 0; i < 100; i++) { try { if (i % 3 === 0) throw new RangeError('r' + i); null.x; } catch (e) { caught += e instanceof RangeError ? 1 : 2; } finally { caught++; } }
  const observed = new Proxy({}, { get: (t, k) => k in t ? t[k] : 0, set: (t, k, v) => { t[k] = v; return true; } });
  for (let i = 0; i < 50; i++) observed['x' + i % 5] += i;
  const big = Array.from({ length: 20 }, (_, i) => BigInt(i + 1)).reduce((a, b) => a * b, 1n);
  return [compose(x => x + 1, x => x * 2)(5), add(1)(2)(3), [...take(20, naturals())].length, hits, caught, observed.x3, big % 1000007n];
})()

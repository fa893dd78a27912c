// rounds: 12
(() => {
  let x = 7;
  const next = n => (x = (x * 16807) % 2147483647) % n;
  const people = Array.from({ length: 700 }, (_, i) => ({ name: 'p' + next(500), age: next(90), score: next(1000) / 7, i }));
  const byAge = people.toSorted((p, q) => p.age - q.age || (p.name < q.name ? -1 : p.name > q.name ? 1 : 0));
  people.sort((p, q) => q.score - p.score);
  const numbers = people.map(p => p.score).sort((a, b) => a - b), names = people.map(p => p.name).sort();
  const merge = a => {
    if (a.length < 2) return a;
    const m = a.length >> 1, l = merge(a.slice(0, m)), r = merge(a.slice(m)), out = [];
    let i = 0, j = 0;
    while (i < l.length && j < r.length) out.push(l[i] <= r[j] ? l[i++] : r[j++]);
    return out.concat(l.slice(i), r.slice(j));
  };
  const merged = merge(numbers.toReversed());
  let found = 0;
  for (let k = 0; k < 300; k++) {
    let lo = 0, hi = merged.length - 1;
    const wanted = next(150);
    while (lo <= hi) { const mid = (lo + hi) >>> 1; if (merged[mid] < wanted) lo = mid + 1; else hi = mid - 1; }
    found += lo;
  }
  people.forEach(p => { p.tag = `${p.name}:${p.age}`; });
  return [byAge[3].age, names[5], found, people.some(p => p.age > 80), people.every(p => p.i >= 0), people.findIndex(p => p.age === 7),
    people.flatMap(p => [p.age, p.i]).length, Object.groupBy ? 1 : 0, numbers.indexOf(numbers[20]), people.at(-1).i];
})()

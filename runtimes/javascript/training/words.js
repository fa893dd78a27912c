// rounds: 12
(() => {
  const words = 'it was the best of times it was the worst of times it was the age of wisdom'.split(' ');
  const counts = {}, groups = new Map();
  for (let i = 0; i < 40; i++) for (const w of words) {
    counts[w] = (counts[w] || 0) + 1;
    if (!groups.has(w.length)) groups.set(w.length, []);
    groups.get(w.length).push(w + i);
  }
  let out = '';
  for (const [w, n] of Object.entries(counts)) out += `${w.padEnd(8, '.')}|${String(n).padStart(5)}|${[...w].reverse().join('')}`;
  const rot = s => s.replace(/[a-z]/g, c => String.fromCharCode((c.charCodeAt(0) - 97 + 13) % 26 + 97));
  let hash = 0;
  for (let i = 0; i < out.length; i++) hash = (hash * 31 + out.charCodeAt(i)) | 0;
  const distance = (a, b) => {
    const row = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      let previous = row[0]; row[0] = i;
      for (let j = 1; j <= b.length; j++) {
        const kept = row[j];
        row[j] = Math.min(row[j] + 1, row[j - 1] + 1, previous + (a[i - 1] === b[j - 1] ? 0 : 1));
        previous = kept;
      }
    }
    return row[b.length];
  };
  return [hash, rot(out).length, distance('the quick brown fox jumps', 'a lazy dog sleeps here'), [...groups.keys()].join(),
    out.slice(5, 20).toUpperCase().trim().indexOf('A'), out.split('|').length, out.includes('wisdom')];
})()

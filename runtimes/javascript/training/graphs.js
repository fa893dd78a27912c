// rounds: 10
(() => {
  class Heap {
    items = [];
    push(item) {
      const a = this.items; a.push(item);
      let i = a.length - 1;
      while (i > 0) { const p = (i - 1) >> 1; if (a[p][0] <= a[i][0]) break; [a[p], a[i]] = [a[i], a[p]]; i = p; }
    }
    pop() {
      const a = this.items, top = a[0], last = a.pop();
      if (a.length) {
        a[0] = last;
        for (let i = 0; ;) {
          let c = 2 * i + 1;
          if (c >= a.length) break;
          if (c + 1 < a.length && a[c + 1][0] < a[c][0]) c++;
          if (a[i][0] <= a[c][0]) break;
          [a[i], a[c]] = [a[c], a[i]]; i = c;
        }
      }
      return top;
    }
  }
  const graph = Array.from({ length: 150 }, (_, i) => [[(i * 7 + 1) % 150, i % 9 + 1], [(i * 3 + 5) % 150, i % 5 + 2]]);
  const best = new Array(150).fill(Infinity), heap = new Heap();
  best[0] = 0; heap.push([0, 0]);
  while (heap.items.length) {
    const [d, u] = heap.pop();
    if (d > best[u]) continue;
    for (const [v, w] of graph[u]) if (d + w < best[v]) { best[v] = d + w; heap.push([d + w, v]); }
  }
  const memo = new Map();
  const ways = (n, k) => {
    if (n === 0) return 1;
    if (n < 0 || k === 0) return 0;
    const key = `${n},${k}`;
    if (memo.has(key)) return memo.get(key);
    const r = ways(n - k, k) + ways(n, k - 1);
    memo.set(key, r);
    return r;
  };
  return [best.filter(Number.isFinite).length, ways(40, 12)];
})()

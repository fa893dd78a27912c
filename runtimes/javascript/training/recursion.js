// rounds: 10
(() => {
  const ackermann = (m, n) => (m === 0 ? n + 1 : n === 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1)));
  function gcd(a, b) { return b === 0 ? a : gcd(b, a % b); }
  function power(b, e) { if (e === 0) return 1; const h = power(b, e >> 1); return e & 1 ? h * h * b : h * h; }
  function tak(x, y, z) { return y >= x ? z : tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y)); }
  const counter = (() => { let n = 0; return { up() { return ++n; }, get value() { return n; } }; })();
  let sum = 0;
  for (let i = 1; i < 500; i++) { sum += gcd(i * 12, 360) + power(2, i % 20); counter.up(); }
  const grid = Array.from({ length: 20 }, () => new Array(20).fill(0));
  for (let step = 0; step < 4; step++) for (let y = 0; y < 20; y++) for (let x = 0; x < 20; x++) {
    let n = 0;
    for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) n += grid[(y + dy + 20) % 20][(x + dx + 20) % 20] & 1;
    grid[y][x] = (n * 3 + x + y + step) % 5;
  }
  return [ackermann(2, 6), sum, tak(9, 5, 2), counter.value, grid[3][7]];
})()

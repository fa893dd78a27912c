// rounds: 6
(() => {
  for (let i = 0; i < 10; i++) console.log('row %d', i, [i, 'x', { a: i, b: [1, 2, { c: null }] }], new Map([[i, { v: i }]]));
  console.log({ name: 'Ada', tags: ['x', 'y'], nested: { deep: { deeper: { deepest: 1 } } }, when: new Date(0), f() {} });
  const day = new Date(Date.UTC(2024, 0, 31));
  let out = '';
  for (let i = 0; i < 30; i++) { day.setUTCDate(day.getUTCDate() + 1); out += day.toISOString().slice(0, 10) + day.getDay(); }
  return out.length;
})()

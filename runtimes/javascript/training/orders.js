// rounds: 12
(() => {
  const orders = Array.from({ length: 120 }, (_, i) => ({ id: i, customer: `c${i % 11}`, lines: [{ sku: `s${i % 7}`, price: i % 13 + 0.99, count: i % 4 + 1 }], paid: i % 3 === 0, note: i % 5 ? null : 'urgent "x"' }));
  const total = o => o.lines.reduce((sum, { price, count }) => sum + price * count, 0);
  const byCustomer = orders.reduce((acc, o) => ({ ...acc, [o.customer]: (acc[o.customer] ?? 0) + total(o) }), {});
  const copy = JSON.parse(JSON.stringify(orders));
  const ranked = Object.entries(byCustomer).map(([name, sum]) => ({ name, sum: Math.round(sum * 100) / 100 })).sort((a, b) => b.sum - a.sum || a.name.localeCompare(b.name));
  const [first, ...others] = ranked;
  const paid = copy.filter(o => o.paid && o.note?.includes('urgent')).map(({ lines: [{ sku }], ...o }) => ({ ...o, sku }));
  const tokens = [...'let x1 = (3.5 + foo) * "a b" >= 10;'.repeat(6).matchAll(/\s*(?:(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|("[^"]*")|([-+*\/()=;<>]+))/g)].map(m => m.slice(1).findIndex(Boolean));
  return [first, others.length, paid.length, tokens.length, Object.keys(byCustomer).length];
})()

// rounds: 8
await (async () => {
  const sleep = ms => new Promise(r => setTimeout(r, ms));
  const work = async n => { await null; if (n % 7 === 0) throw new Error('seven'); return n * 2; };
  const results = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => work(i)));
  let sum = 0;
  for (let i = 0; i < 120; i++) sum += await i;
  async function* ticks() { for (let i = 0; i < 30; i++) { await null; yield i; } }
  for await (const t of ticks()) sum += t;
  await Promise.race([sleep(1), sleep(2)]);
  return [results.filter(r => r.status === 'rejected').length, sum];
})()

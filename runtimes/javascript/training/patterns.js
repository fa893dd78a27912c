// rounds: 12
(() => {
  const log = Array.from({ length: 60 }, (_, i) => `10.0.${i % 4}.${i} - user${i % 7} "GET /item/${i * 37}?page=${i % 5}&q=a%20b HTTP/1.1" ${i % 6 ? 200 : 404} ${i * 91}`).join('\n');
  const entry = /^(\S+) - (?<user>\w+) "(GET|POST) ([^ "]+) [^"]*" (\d{3}) (\d+)$/;
  const seen = {};
  for (const line of log.split('\n')) {
    const m = entry.exec(line);
    const { user } = m.groups;
    (seen[user] ??= []).push({ path: decodeURIComponent(m[4]), status: Number(m[5]), bytes: parseInt(m[6], 10) });
  }
  const text = JSON.stringify(seen), back = JSON.parse(text, (k, v) => (typeof v === 'number' ? v + 1 : v));
  const camel = 'some_snake_case_name'.repeat(8).replace(/_([a-z])/g, (_, c) => c.toUpperCase());
  const words = log.match(/[a-z]+/gi).length, csv = log.split(/[\s"]+/).map(s => s.trim()).filter(Boolean).join(',');
  return [Object.keys(back).length, camel.length, words, csv.length, /\d{4,}$/m.test(log), text.replaceAll('user', 'u').length];
})()

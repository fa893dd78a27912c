"""CPU-bound snippets, each with a value to compare. The interpreters' profile-guided builds are trained on others."""

from __future__ import annotations

PYTHON = {
    "fib": """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
fib(28)
""",
    "nbody": """
def advance(bodies, pairs, dt, steps):
    for _ in range(steps):
        for ([x1, y1, z1], v1, m1), ([x2, y2, z2], v2, m2) in pairs:
            dx = x1 - x2
            dy = y1 - y2
            dz = z1 - z2
            mag = dt * (dx * dx + dy * dy + dz * dz) ** -1.5
            v1[0] -= dx * m2 * mag
            v1[1] -= dy * m2 * mag
            v1[2] -= dz * m2 * mag
            v2[0] += dx * m1 * mag
            v2[1] += dy * m1 * mag
            v2[2] += dz * m1 * mag
        for r, v, _ in bodies:
            r[0] += dt * v[0]
            r[1] += dt * v[1]
            r[2] += dt * v[2]
bodies = [([float(i), i * 0.5, -float(i)], [0.0, 0.01 * i, 0.02], 1.0 + i) for i in range(5)]
pairs = [(a, b) for i, a in enumerate(bodies) for b in bodies[i + 1:]]
advance(bodies, pairs, 0.001, 12000)
round(sum(abs(r[0]) + abs(r[1]) for r, _, _ in bodies), 6)
""",
    "json+re": """
import json, re
records = [{"id": i, "name": f"user {i}", "mail": f"user{i}@example.org", "tags": ["a", "b", str(i)],
            "score": i / 7, "nested": {"ok": True, "none": None}} for i in range(800)]
total = 0
for _ in range(5):
    text = json.dumps(records)
    back = json.loads(text)
    total += len(text) + back[17]["id"]
    total += sum(len(m.group(1)) for m in re.finditer(r'"mail": "(\\w+)@example\\.org"', text))
    total += len(re.sub(r"\\d+", "#", text)) + len(re.split(r"[,:]\\s*", text))
total
""",
    "dict": """
words = [f"w{(i * 7919) % 4001}" for i in range(60000)]
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
index = {}
for position, word in enumerate(words):
    index.setdefault(word[:3], []).append(position)
squares = {i: i * i for i in range(60000)}
total = 0
for key in range(0, 60000, 2):
    if key in squares:
        total += squares.pop(key)
merged = {**squares, **{key: len(value) for key, value in index.items()}}
total + len(merged) + max(counts.values()) + sum(merged.values())
""",
    "sorting": """
x = 12345
numbers = []
for _ in range(60000):
    x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    numbers.append(x)
by_number = sorted(numbers)
by_text = sorted(map(str, numbers))
by_key = sorted(numbers, key=lambda n: (n % 97, -n))
pairs = sorted((n % 1000, n) for n in numbers)
by_number[100] + len(by_text[200]) + by_key[300] + pairs[400][1]
""",
}

JAVASCRIPT = {
    "fib": """
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
fib(28)
""",
    "sort": """
let x = 12345;
const numbers = [];
for (let i = 0; i < 40000; i++) { x = (x * 48271) % 2147483647; numbers.push(x); }
const up = numbers.slice().sort((a, b) => a - b);
const text = numbers.slice().sort();
const keyed = numbers.map(n => ({ key: n % 97, n })).sort((a, b) => a.key - b.key || b.n - a.n);
up[100] + text[200] + keyed[300].n
""",
    "json": """
const records = [];
for (let i = 0; i < 800; i++) {
  records.push({ id: i, name: `user ${i}`, mail: `user${i}@example.org`, tags: ["a", "b", String(i)],
                 score: i / 7, nested: { ok: true, none: null } });
}
let total = 0;
for (let i = 0; i < 8; i++) { const text = JSON.stringify(records); total += text.length + JSON.parse(text)[17].id; }
total
""",
    "regex": """
let line = "";
for (let i = 0; i < 1500; i++) line += `2024-01-${(i % 28) + 10} host${i % 5}: id=${i} path=/a/b/${i}?x=${i}\\n`;
let total = 0;
for (let i = 0; i < 3; i++) {
  for (const m of line.matchAll(/^(\\d{4})-(\\d\\d)-(\\d\\d) (\\w+): id=(\\d+)/gm)) total += m[5].length;
  total += line.replace(/(\\w+)=(\\d+)/g, "$2=$1").length + line.split(/[\\s,;]+/).length;
}
total
""",
}

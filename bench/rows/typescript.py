"""What TypeScript costs beyond JavaScript: twenty lines with types, translated in a fresh instance each time."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Turn, in_turns, timed
from bench.report import Figure, Row, ms, pair, times
from bench.settings import Settings
from wasmeval import Evaluator

_TARGET_SECONDS = 0.0015

TYPESCRIPT = """\
interface Item { name: string; price: number; tags?: string[] }
type Totals = Record<string, number>;
function total(items: Item[], rate: number = 0.25): number {
  return items.reduce((sum: number, item: Item) => sum + item.price * (1 + rate), 0);
}
class Basket<T extends Item> {
  private items: T[] = [];
  add(item: T): this {
    this.items.push(item);
    return this;
  }
  byTag(tag: string): T[] {
    return this.items.filter((item) => item.tags?.includes(tag) ?? false);
  }
  get all(): readonly T[] { return this.items; }
}
const basket = new Basket<Item>();
basket.add({ name: "tea", price: 4, tags: ["hot"] }).add({ name: "ice", price: 2 });
const totals: Totals = { all: total([...basket.all]), hot: total(basket.byTag("hot")) };
totals as unknown
"""
JAVASCRIPT = """\


function total(items, rate = 0.25) {
  return items.reduce((sum, item) => sum + item.price * (1 + rate), 0);
}
class Basket {
  items = [];
  add(item) {
    this.items.push(item);
    return this;
  }
  byTag(tag) {
    return this.items.filter((item) => item.tags?.includes(tag) ?? false);
  }
  get all() { return this.items; }
}
const basket = new Basket();
basket.add({ name: "tea", price: 4, tags: ["hot"] }).add({ name: "ice", price: 2 });
const totals = { all: total([...basket.all]), hot: total(basket.byTag("hot")) };
totals
"""


def rows(settings: Settings) -> Iterator[Row]:
    """The same twenty lines with types and without, embedded, one after the other, in turns."""
    with Evaluator(workers=1) as evaluator:
        for language, code in (("typescript", TYPESCRIPT), ("javascript", JAVASCRIPT)):
            if evaluator.evaluate(code, language=language).raise_for_status().value != {"all": 7.5, "hot": 5}:
                raise RuntimeError(f"{language} gives another value")
        samples = in_turns(
            {
                "typescript": Turn(timed(lambda: evaluator.evaluate(TYPESCRIPT, language="typescript"))),
                "javascript": Turn(timed(lambda: evaluator.evaluate(JAVASCRIPT, language="javascript"))),
            },
            settings.of(20, 2),
        )
    typed, plain = samples["typescript"], samples["javascript"]
    cost = typed.p50 - plain.p50
    yield Row(
        "TypeScript, 20 lines, beyond the same JavaScript, embedded, every instance fresh, p50",
        f"**{ms(cost)}**: {pair(typed)}",
        f"JavaScript {pair(plain)}",
        f"<= {ms(_TARGET_SECONDS)}",
        cost <= _TARGET_SECONDS,
        [
            *times("typescript", typed),
            *times("typescript", plain, peer="javascript"),
            Figure("typescript_cost", "ms", cost * 1e3, {"quantile": "p50"}),
        ],
    )

"""CSV in, chart data out: a file for the snippet, a file from it, and nothing of ours in between.

python docs/examples/csv_to_chart.py [sales.csv]
"""

from __future__ import annotations

import sys
from pathlib import Path

import wasmeval

SALES = b"""\
month,drink,sold
2026-01,tea,30
2026-01,coffee,50
2026-02,tea,44
2026-02,coffee,47
2026-03,tea,61
2026-03,coffee,40
"""

# What a model might write when it is asked for a chart of this file.
SNIPPET = """\
import csv, json
from collections import defaultdict

series = defaultdict(dict)
with open("sales.csv", newline="") as file:
    for row in csv.DictReader(file):
        series[row["drink"]][row["month"]] = int(row["sold"])

months = sorted({month for values in series.values() for month in values})
highest = max(max(values.values()) for values in series.values())
lines = []
for number, (drink, values) in enumerate(sorted(series.items())):
    points = " ".join(f"{40 + 80 * i},{180 - 150 * values.get(m, 0) // highest}" for i, m in enumerate(months))
    colour = ("teal", "sienna", "indigo")[number % 3]
    lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    lines.append(f'<text x="4" y="{16 + 14 * number}" fill="{colour}">{drink}</text>')

with open("chart.svg", "w") as file:
    file.write('<svg xmlns="http://www.w3.org/2000/svg" width="260" height="200">' + "".join(lines) + "</svg>")
with open("chart.json", "w") as file:
    json.dump({"months": months, "series": {drink: [v.get(m) for m in months] for drink, v in series.items()}}, file)
{drink: sum(values.values()) for drink, values in series.items()}
"""


def main(data: bytes = SALES) -> wasmeval.Result:
    """The totals as a value; the chart as a picture and as data."""
    result = wasmeval.evaluate(SNIPPET, files={"sales.csv": data}, outputs=["chart.*"])
    return result.raise_for_status()


if __name__ == "__main__":
    done = main(Path(sys.argv[1]).read_bytes()) if len(sys.argv) > 1 else main()
    print(done.value)
    for path, file in done.files.items():
        print(f"{path}: {file.size} bytes, {file.media_type}")

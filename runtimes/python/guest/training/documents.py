# What comes from and goes to files and services: JSON, CSV, XML, dates, paths, patterns, configuration.
import calendar
import configparser
import csv
import datetime
import io
import json
import pathlib
import re
import statistics
import struct
import uuid
import xml.etree.ElementTree as ElementTree
import zlib

orders = [
    {"id": n, "who": f"customer {n % 13}", "paid": n % 3 == 0, "lines": [{"sku": f"A-{n}", "price": n / 4, "note": None}]}
    for n in range(90)
]
document = json.dumps({"orders": orders, "title": "Übersicht \"x\"\n"}, sort_keys=True)
again = json.loads(document)
pretty = json.dumps(again["orders"][:10], indent=2, ensure_ascii=False)
log = "\n".join(
    f"10.0.{n % 4}.{n % 250} - [{n % 28 + 1:02d}/Mar/2024] \"GET /item/{n}?q={n % 5} HTTP/1.1\" {200 + n % 3 * 100}"
    for n in range(160)
)
request = re.compile(r'^(?P<ip>[\d.]+) - \[(?P<day>\d+)/(\w{3})/(\d{4})\] "(GET|POST) ([^ ?]+)\??(\S*) [^"]*" (\d+)$', re.M)
hits = [match.groupdict() for match in request.finditer(log)]
masked = re.sub(r"\d+\.\d+\.\d+\.(\d+)", lambda match: "x." + match.group(1), log)
tokens = re.findall(r"[A-Za-z_]\w*|\d+(?:\.\d+)?|[-+*/()=]", "total = (price * 1.19 + fee_2) / 3 - x" * 12)
mails = [bool(re.fullmatch(r"[\w.+-]+@[\w-]+\.[\w.]+", text)) for text in ("a@b.cd", "no", "x.y@z.org") * 20]
sheet = io.StringIO()
writer = csv.writer(sheet)
writer.writerow(["day", "amount", "text"])
writer.writerows([n, n * 1.5, 'quote " and, comma'] for n in range(60))
rows = list(csv.DictReader(io.StringIO(sheet.getvalue())))
root = ElementTree.fromstring("<r>" + "".join(f'<i k="{n}">v{n}</i>' for n in range(60)) + "</r>")
start = datetime.date(2023, 12, 28)
days = [start + datetime.timedelta(days=n) for n in range(60)]
moments = [datetime.datetime.strptime(f"2024-02-{n:02d} 12:30", "%Y-%m-%d %H:%M") for n in range(1, 20)]
settings = configparser.ConfigParser()
settings.read_string("[a]\nx = 1\ny = %(x)s2\n[b]\nz: yes\n")
path = pathlib.PurePosixPath("/srv/data") / "2024" / "report.tar.gz"
packed = b"".join(struct.pack("<IHd", n, n % 7, n / 3) for n in range(60))
squeezed = zlib.compress(log.encode())
[
    len(pretty),
    sum(line["price"] for order in again["orders"] for line in order["lines"]),
    len(hits),
    len(masked),
    len(tokens),
    sum(mails),
    sum(float(row["amount"]) for row in rows),
    sum(int(child.get("k")) for child in root.iter("i")),
    [day.isoformat() for day in days if day.weekday() == 0][:2],
    moments[3].strftime("%A %d %B"),
    calendar.monthrange(2024, 2),
    statistics.mean(n["id"] for n in orders),
    round(statistics.stdev(range(40)), 4),
    settings["a"]["y"],
    path.suffixes,
    struct.unpack_from("<IHd", packed, 14)[1],
    len(zlib.decompress(squeezed)),
    str(uuid.uuid5(uuid.NAMESPACE_DNS, "example.org")),
]

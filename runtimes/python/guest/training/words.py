# Text: formatting, splitting, joining, searching, encoding, templates, tables.
import base64
import hashlib
import html
import string
import textwrap
import unicodedata
import urllib.parse

text = "When the wind is in the east it is good for neither man nor beast, and so it goes. " * 25
words = text.replace(",", " ,").split()
index = {}
for position, word in enumerate(words):
    index.setdefault(word.strip(".,").lower(), []).append(position)
lines = [f"{n:>4} | {word:<8} | {len(word):02d} | {word[::-1]}" for n, word in enumerate(words)]
page = "\n".join(lines)
shifted = "".join(chr((ord(c) - 97 + 5) % 26 + 97) if "a" <= c <= "z" else c for c in text)
table = str.maketrans("aeiou", "uoiea")
pairs = {}
for first, second in zip(text, text[1:]):
    pairs[first + second] = pairs.get(first + second, 0) + 1
palindromes = [w for w in index if w == w[::-1]]
wrapped = textwrap.wrap(text[:600], width=48)
cells = [row.split("|") for row in page.splitlines()[:120]]
width = max(len(cell.strip()) for row in cells for cell in row)
parsed = dict(item.partition("=")[::2] for item in "a=1;b=two;c=;d=x=y".split(";"))
accents = unicodedata.normalize("NFD", "éèüñçå" * 20)
plain = "".join(c for c in accents if not unicodedata.combining(c))
mixed = ("naïve café — 漢字 😀 " * 30).encode("utf-8").decode("utf-8").upper()
template = string.Template("$who owes $what").substitute(who="Ann", what="%d%%" % 12)
checks = [w for w in words if w.isalpha() and not w.startswith("w") and w.endswith(("d", "t"))]
[
    len(page),
    shifted[:12],
    text.translate(table).count("u"),
    max(pairs, key=pairs.get),
    palindromes,
    len(wrapped),
    width,
    parsed,
    plain[:6],
    mixed.find("漢"),
    template,
    len(checks),
    hashlib.sha256(page.encode()).hexdigest()[:8],
    base64.b64encode(text[:30].encode()).decode(),
    html.escape("<b>&'</b>"),
    urllib.parse.quote("a b/ü"),
    "%s-%r-%5.2f-%x" % ("s", "r", 3.14159, 255),
    "{:,} {:e} {:>+8.1f} {!r:^9}".format(1234567, 0.00012, -3.75, "mid"),
]

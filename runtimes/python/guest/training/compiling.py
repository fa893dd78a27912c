# Source text becomes code, as it does once for every snippet.
import ast

parts = [
    "def area_{n}(width, height=2, *rest, unit='cm', **options):\n"
    "    '''The area.'''\n"
    "    sizes = [w * height for w in range(width) if w % 2 or not w]\n"
    "    try:\n        total = sum(sizes, start=rest[0] if rest else 0)\n"
    "    except (TypeError, IndexError) as error:\n        raise ValueError(f'{{unit}}: {{error!r}}') from error\n"
    "    else:\n        options.setdefault('total', total)\n"
    "    return {{'sizes': sizes, unit: total, **options}}\n",
    "class Thing_{n}(Base, metaclass=type):\n    kind: str = 'thing'\n\n"
    "    def __init__(self, a, /, b, *, c=None):\n        self.a, self.b = a, b\n        self.c = c or {{a: b}}\n\n"
    "    @property\n    def both(self):\n        return self.a if self.a is not None else self.b\n\n"
    "    async def wait(self):\n        async with self as x:\n            await x\n",
    "values_{n} = [(i, j) for i in range(4) for j in 'abc' if i != {n}]\n"
    "lookup_{n} = {{key: len(key) for key, *_ in ['x', 'yy']}}\n"
    "while (left := len(values_{n})) > 3:\n    values_{n}.pop()\n    if left == 5: continue\n    elif left < 2: break\n"
    "for i, pair in enumerate(values_{n}, start=1):\n    print(i, *pair, sep=', ') if False else None\n",
    "match {n}:\n    case 0 | 1: small_{n} = True\n    case int(x) if x > 5: small_{n} = False\n    case _: small_{n} = None\n"
    "with open('f') if False else __import__('contextlib').nullcontext({n}) as held_{n}:\n    pass\n"
    "text_{n} = f'{{held_{n}:>5}} {{1 + 2 * 3 ** 2 // 4 % 5 - ~6 & 7 | 8 ^ 9 << 1}}' 'joined' \"\"\"long\"\"\"\n"
    "check_{n} = 1 < held_{n} <= 3 != 4 and not held_{n} in (5, 6) or lambda_{n}(2) if False else -1.5e3\n"
    "lambda_{n} = lambda x, *y: (yield x) if y else x[1:2, ::3]\n",
]
source = "Base = object\n" + "".join(part.format(n=n) for n in range(12) for part in parts)
names = {}
exec(compile(source, "generated", "exec"), names)
tree = ast.parse(source)
short = [eval(f"{n} + {n} * (2 - {n})") for n in range(120)]
[len(names), sum(1 for _ in ast.walk(tree)), names["area_3"](4)["cm"], short[-1]]

# Lists, tuples, sets, deques, heaps and the functions that work on them.
import bisect
import copy
import functools
import heapq
import itertools
import operator
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

Edge = namedtuple("Edge", "start end cost")
edges = [Edge(n % 40, (n * 7 + 3) % 40, n % 9 + 1) for n in range(320)]
graph = defaultdict(list)
for edge in edges:
    graph[edge.start].append((edge.end, edge.cost))


def distances(graph, source):
    best, queue = {source: 0}, [(0, source)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if so_far > best[node]:
            continue
        for other, cost in graph.get(node, ()):
            if (there := so_far + cost) < best.get(other, 1 << 30):
                best[other] = there
                heapq.heappush(queue, (there, other))
    return best


def breadth_first(graph, source):
    seen, order, waiting = {source}, [], deque([source])
    while waiting:
        node = waiting.popleft()
        order.append(node)
        for other, _ in graph[node]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return order


@functools.lru_cache(maxsize=None)
def edit_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return edit_distance(a[1:], b[1:])
    return 1 + min(edit_distance(a[1:], b), edit_distance(a, b[1:]), edit_distance(a[1:], b[1:]))


def merge(left, right):
    out, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            out.append(left[i])
            i += 1
        else:
            out.append(right[j])
            j += 1
    out.extend(left[i:])
    out.extend(right[j:])
    return out


def flatten(nested):
    for item in nested:
        if isinstance(item, (list, tuple)):
            yield from flatten(item)
        else:
            yield item


def running(values, start=0, *extra, scale=1, **named):
    for value in itertools.chain(values, extra):
        start += value * scale
        yield start


grid = [[(x * y + x) % 5 for x in range(30)] for y in range(30)]
life = {(x, y) for x in range(12) for y in range(12) if (x * 3 + y) % 4 == 0}
for _ in range(3):
    near = Counter((x + dx, y + dy) for x, y in life for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)
    life = {cell for cell, count in near.items() if count == 3 or (count == 2 and cell in life)}
ordered = []
for n in range(250):
    bisect.insort(ordered, (n * 37) % 251)
window = [max(grid[0][i : i + 4]) for i in range(27)]
transposed = [list(column) for column in zip(*grid)]
by_length = {k: list(g) for k, g in itertools.groupby(sorted("a bb cc ddd e fff".split(), key=len), key=len)}
recent = OrderedDict((n, n * n) for n in range(50))
recent.move_to_end(3)
stack = list(range(60))
while len(stack) > 1:
    top, below = stack.pop(), stack.pop()
    stack.insert(0, top - below) if top % 3 else stack.append(top + below)
deep = copy.deepcopy({"a": [1, (2, {"b": {3}})], "c": ordered[:20]})
subsets = [combination for size in range(4) for combination in itertools.combinations(range(9), size)]
records = sorted(({"k": n % 7, "v": -n} for n in range(200)), key=operator.itemgetter("k", "v"))
a, *middle, z = ordered
squares = {n: n * n for n in range(200) if n % 3}
squares |= {-n: n for n in range(10)}
del squares[1]
[
    sum(distances(graph, 0).values()),
    len(breadth_first(graph, 0)),
    edit_distance("intention", "execution"),
    merge(ordered[::2], ordered[1::2]) == ordered,
    list(flatten([1, [2, (3, [4])], 5]))[-1],
    list(running(range(50), 5, 6, scale=2))[-1],
    len(life),
    window[-1],
    transposed[3][4],
    by_length,
    next(reversed(recent)),
    stack,
    len(str(deep)),
    len(subsets),
    records[0],
    (a, len(middle), z),
    functools.reduce(operator.xor, ordered),
    any(n > 249 for n in ordered) and all(map(lambda n: n >= 0, ordered)),
    sum(squares.values()),
    [*{1, 2} & {2, 3}, *{1} | {4}, *({1, 5} - {5})],
]

# Floats in lists and tuples, stepped through time; ordering by many keys.
import math


def diffuse(grid, steps, rate):
    height, width = len(grid), len(grid[0])
    for _ in range(steps):
        fresh = [row[:] for row in grid]
        for y in range(1, height - 1):
            above, row, below = grid[y - 1], grid[y], grid[y + 1]
            for x in range(1, width - 1):
                flow = above[x] + below[x] + row[x - 1] + row[x + 1] - 4.0 * row[x]
                fresh[y][x] = row[x] + rate * flow
        grid = fresh
    return grid


def throw(speed, angle, drag, dt):
    x, y = 0.0, 0.0
    vx, vy = speed * math.cos(angle), speed * math.sin(angle)
    while y >= 0.0:
        v = math.sqrt(vx * vx + vy * vy)
        vx, vy = vx - drag * v * vx * dt, vy - (9.81 + drag * v * vy) * dt
        x += vx * dt
        y += vy * dt
    return x


def springs(points, rounds):
    for _ in range(rounds):
        for i in range(1, len(points)):
            a, b = points[i - 1], points[i]
            stretch = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5 - 1.0
            push = stretch * 0.05
            a[0] += push
            b[0] -= push
            a[2], b[2] = a[2] * 0.99 + push, b[2] * 0.99 - push
        for point in points:
            point[1] += point[2] * 0.1
    return sum(point[0] - point[1] for point in points)


def horner(coefficients, x):
    total = 0.0
    for c in reversed(coefficients):
        total = total * x + c
    return total


class Vector:
    __slots__ = ("x", "y", "z")

    def __init__(self, x, y, z):
        self.x = x
        self.y = y
        self.z = z

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y, self.z + other.z)

    def __mul__(self, factor):
        return Vector(self.x * factor, self.y * factor, self.z * factor)

    def dot(self, other):
        return self.x * other.x + self.y * other.y + self.z * other.z


state, draws = 12345, []
for _ in range(3000):
    state = (state * 69069 + 1) % 4294967296
    draws.append(state / 4294967296.0)
inside = sum(1 for a, b in zip(draws[::2], draws[1::2]) if a * a + b * b < 1.0)
where = Vector(0.0, 0.0, 0.0)
for a in draws[:900]:
    where = where + Vector(a, 1.0 - a, a * a) * 0.5
people = [(f"name{int(d * 500)}", int(d * 90), d) for d in draws[:1500]]
by_age = sorted(people, key=lambda p: (p[1], p[0]))
by_name = sorted(people)
names = sorted({p[0] for p in people}, key=str.lower, reverse=True)
whole = sorted(int(d * 1e6) for d in draws)
draws_sorted = sorted(draws, reverse=True)
totals = {}
for name, age, share in people:
    totals[age] = totals.get(age, 0.0) + share
    if name not in totals:
        totals[name] = []
    totals[name].append(age)
grid = diffuse([[float((x * y) % 7) for x in range(26)] for y in range(20)], 6, 0.1)
[
    round(sum(map(sum, grid)), 3),
    round(sum(throw(40.0 + n, 0.7, 0.004, 0.02) for n in range(6)), 3),
    round(springs([[float(n), n * 0.3, 0.1] for n in range(30)], 25), 6),
    round(sum(horner((1.0, -2.0, 0.5, 3.0, -0.25), n / 50) for n in range(300)), 6),
    inside,
    round(where.dot(where), 3),
    by_age[0][1],
    by_name[-1][0],
    names[0],
    whole[0],
    len(draws_sorted),
    len(totals),
]

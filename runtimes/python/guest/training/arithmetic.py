# Arithmetic in loops: small and big integers, floats, complex numbers, lists of lists.
import math
from decimal import Decimal
from fractions import Fraction


def primes(limit):
    flags = bytearray([1]) * (limit + 1)
    flags[0] = flags[1] = 0
    for n in range(2, int(limit**0.5) + 1):
        if flags[n]:
            for multiple in range(n * n, limit + 1, n):
                flags[multiple] = 0
    return [n for n in range(limit + 1) if flags[n]]


def escape(width, height, steps):
    inside = 0
    for row in range(height):
        for column in range(width):
            z, c = 0j, complex(3.0 * column / width - 2.2, 2.0 * row / height - 1.0)
            for _ in range(steps):
                z = z * z + c
                if abs(z) > 2.0:
                    break
            else:
                inside += 1
    return inside


def multiply(a, b):
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]


def eliminate(matrix):
    size, determinant = len(matrix), 1.0
    rows = [row[:] for row in matrix]
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(rows[r][i]))
        if pivot != i:
            rows[i], rows[pivot] = rows[pivot], rows[i]
            determinant = -determinant
        determinant *= rows[i][i]
        for r in range(i + 1, size):
            factor = rows[r][i] / rows[i][i]
            for k in range(i, size):
                rows[r][k] -= factor * rows[i][k]
    return determinant


def longest_chain(limit):
    best = (0, 0)
    for start in range(1, limit):
        n, length = start, 1
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            length += 1
        if length > best[0]:
            best = length, start
    return best


def integrate(f, low, high, steps):
    width = (high - low) / steps
    total = 0.5 * (f(low) + f(high))
    for i in range(1, steps):
        total += f(low + i * width)
    return total * width


matrix = [[((i * 7 + j * 3) % 11) + (i == j) * 5.5 for j in range(14)] for i in range(14)]
steps = 0
i = 0
while i < 6000:
    i += 3
    if i & 4:
        steps ^= i << 1
    elif i > 3000 and not i % 5:
        steps -= i
    else:
        steps += i >> 2
[
    sum(primes(4000)),
    escape(24, 16, 20),
    round(eliminate(multiply(matrix, matrix)), 3) is not None,
    longest_chain(400),
    round(integrate(lambda x: math.sin(x) * x, 0.0, 3.0, 800), 6),
    str(sum(Decimal("0.1") * n for n in range(40))),
    str(sum(Fraction(1, n) for n in range(1, 25))),
    pow(7, 222, 10**9 + 7),
    math.gcd(2**89 - 1, 3**40),
    len(str(3**400)),
    math.isqrt(10**30),
    divmod(-17, 5),
    round(2.675, 2),
    steps,
]

# Interpreters in the interpreter: dispatch by comparison, by dict, by match; string scanning; exceptions; closures.
import enum
from contextlib import contextmanager
from dataclasses import dataclass, field


class Op(enum.Enum):
    PUSH = 1
    ADD = 2
    MUL = 3
    JUMP = 4


def run(program, budget=4000):
    stack, at = [], 0
    while at < len(program) and budget:
        budget -= 1
        match program[at]:
            case (Op.PUSH, int(value)):
                stack.append(value)
            case (Op.ADD,):
                stack.append(stack.pop() + stack.pop())
            case (Op.MUL,):
                stack.append(stack.pop() * stack.pop() % 9973)
            case (Op.JUMP, target) if stack[-1] % 7:
                at = target
                continue
            case _:
                pass
        at += 1
    return stack


def tape(program, cells=32):
    jumps, open_at = {}, []
    for at, symbol in enumerate(program):
        if symbol == "[":
            open_at.append(at)
        elif symbol == "]":
            jumps[at] = open_at.pop()
            jumps[jumps[at]] = at
    memory, pointer, at, out = [0] * cells, 0, 0, []
    while at < len(program):
        symbol = program[at]
        if symbol == ">":
            pointer += 1
        elif symbol == "<":
            pointer -= 1
        elif symbol == "+":
            memory[pointer] = (memory[pointer] + 1) % 256
        elif symbol == "-":
            memory[pointer] = (memory[pointer] - 1) % 256
        elif symbol == ".":
            out.append(chr(memory[pointer]))
        elif (symbol == "[" and not memory[pointer]) or (symbol == "]" and memory[pointer]):
            at = jumps[at]
        at += 1
    return "".join(out)


class Parser:
    """Arithmetic by recursive descent."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self):
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self, wanted):
        if self.peek() != wanted:
            raise SyntaxError(f"{wanted!r} expected at {self.at}")
        self.at += 1

    def sum(self):
        value = self.product()
        while (sign := self.peek()) and sign in "+-":
            self.at += 1
            value = value + self.product() if sign == "+" else value - self.product()
        return value

    def product(self):
        value = self.atom()
        while (sign := self.peek()) and sign in "*/":
            self.at += 1
            value = value * self.atom() if sign == "*" else value / self.atom()
        return value

    def atom(self):
        if self.peek() == "(":
            self.take("(")
            value = self.sum()
            self.take(")")
            return value
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isdigit() or self.text[self.at] == "."):
            self.at += 1
        if start == self.at:
            raise SyntaxError("a number expected")
        return float(self.text[start : self.at])


@dataclass(order=True)
class Account:
    owner: str
    balance: float = 0.0
    history: list = field(default_factory=list, compare=False)

    def pay(self, amount):
        if amount > self.balance:
            raise ValueError(f"{self.owner} lacks {amount - self.balance:.2f}")
        self.balance -= amount
        self.history.append(-amount)


@contextmanager
def noted(log, name):
    log.append(f"+{name}")
    try:
        yield log
    except KeyError:
        log.append("key")
    finally:
        log.append(f"-{name}")


def counter():
    count = 0

    def step(by=1):
        nonlocal count
        count += by
        return count

    return step


def moves(discs, a="a", b="b", c="c"):
    return 0 if not discs else moves(discs - 1, a, c, b) + 1 + moves(discs - 1, c, b, a)


def collatz_gen(n):
    while n != 1:
        sent = yield n
        n = sent if sent else (n // 2 if n % 2 == 0 else 3 * n + 1)


program = [(Op.PUSH, 3), (Op.PUSH, 5), (Op.MUL,), (Op.PUSH, 11), (Op.ADD,), (Op.JUMP, 1)]
accounts = [Account(f"n{n}", n * 10.0) for n in range(40)]
failures = 0
for n in range(400):
    try:
        accounts[n % 45].pay(n % 23)
    except (ValueError, IndexError) as error:
        failures += len(str(error)) > 3
    else:
        failures += 0
log = []
for n in range(60):
    with noted(log, n):
        if n % 9 == 0:
            {}[n]
step = counter()
ticks = [step(n % 3) for n in range(500)]
[
    run(program)[-1],
    tape("++++++[>++++++++++<-]>++.>+++++[<++++++>-]<.-.+."),
    [Parser("(1 + 2) * 3 - 4 / (5 + 6.5)").sum() for _ in range(25)][0],
    failures,
    len(log),
    ticks[-1],
    moves(9),
    sum(1 for _ in collatz_gen(97)),
    max(accounts).owner,
]

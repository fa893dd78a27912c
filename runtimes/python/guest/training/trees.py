# Objects that point at each other: attribute loads and stores, method calls, generators, special methods.


class Leaf:
    __slots__ = ("key", "value", "left", "right")

    def __init__(self, key, value):
        self.key, self.value, self.left, self.right = key, value, None, None


class Tree:
    def __init__(self):
        self.root = None
        self.size = 0

    def insert(self, key, value):
        if self.root is None:
            self.root = Leaf(key, value)
            self.size = 1
            return
        at = self.root
        while True:
            if key == at.key:
                at.value = value
                return
            side = "left" if key < at.key else "right"
            child = at.left if side == "left" else at.right
            if child is None:
                setattr(at, side, Leaf(key, value))
                self.size += 1
                return
            at = child

    def __iter__(self):
        yield from self._walk(self.root)

    def _walk(self, at):
        if at is not None:
            yield from self._walk(at.left)
            yield at.key, at.value
            yield from self._walk(at.right)

    def __len__(self):
        return self.size

    def __contains__(self, key):
        at = self.root
        while at is not None and at.key != key:
            at = at.left if key < at.key else at.right
        return at is not None


class Shape:
    sides = 0

    def area(self):
        raise NotImplementedError

    @property
    def name(self):
        return type(self).__name__.lower()

    def __lt__(self, other):
        return self.area() < other.area()


class Square(Shape):
    sides = 4

    def __init__(self, edge):
        super().__init__()
        self.edge = edge

    def area(self):
        return self.edge**2


class Disc(Shape):
    def __init__(self, radius):
        self.radius = radius

    def area(self):
        return 3.14159 * self.radius * self.radius

    def __eq__(self, other):
        return isinstance(other, Disc) and other.radius == self.radius

    def __hash__(self):
        return hash(self.radius)

    def __repr__(self):
        return f"Disc({self.radius!r})"


tree, seed = Tree(), 2024
for i in range(1200):
    seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
    tree.insert(seed % 900, i)
found = sum(1 for key in range(900) if key in tree)
shapes = [Square(n % 17) if n % 3 else Disc(n % 13) for n in range(500)]
total = sum(shape.area() for shape in shapes)
widest = max(shapes).name, min(shapes).sides
distinct = len({shape for shape in shapes if isinstance(shape, Disc)})
(len(tree), found, round(total), widest, distinct, str(Disc(2)), sum(value for _, value in tree))

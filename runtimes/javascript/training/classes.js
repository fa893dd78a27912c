// rounds: 10
(() => {
  class Node { constructor(key, value) { this.key = key; this.value = value; this.left = this.right = null; } }
  class Tree {
    #size = 0;
    root = null;
    set(key, value) {
      if (!this.root) { this.root = new Node(key, value); this.#size++; return this; }
      let node = this.root;
      for (;;) {
        if (key === node.key) { node.value = value; return this; }
        const side = key < node.key ? 'left' : 'right';
        if (!node[side]) { node[side] = new Node(key, value); this.#size++; return this; }
        node = node[side];
      }
    }
    *[Symbol.iterator]() { yield* this.walk(this.root); }
    *walk(node) { if (node) { yield* this.walk(node.left); yield [node.key, node.value]; yield* this.walk(node.right); } }
    get size() { return this.#size; }
  }
  const tree = new Tree();
  let x = 12345;
  for (let i = 0; i < 600; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; tree.set(x % 1000, { i, even: i % 2 === 0 }); }
  let sum = 0;
  for (const [key, { i }] of tree) sum += key * i;
  class Shape { area() { return 0; } describe() { return `${this.constructor.name} ${this.area().toFixed(2)}`; } }
  class Square extends Shape { constructor(side) { super(); this.side = side; } area() { return this.side ** 2; } }
  class Circle extends Shape { constructor(r) { super(); this.r = r; } area() { return Math.PI * this.r * this.r; } }
  const text = Array.from({ length: 200 }, (_, i) => (i % 2 ? new Square(i) : new Circle(i)).describe()).join();
  return [sum, tree.size, text.length];
})()

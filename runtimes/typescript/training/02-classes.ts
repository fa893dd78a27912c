import type { Missing } from "missing";
abstract class Shape<T = unknown> {
  static readonly kind: string = "shape";
  static #made = 0;
  private readonly secret?: T;
  protected name!: string;
  declare extra: number;
  [key: string]: unknown;
  abstract area(): number;
  get size(): number { return this.area() }
  set size(value: number) { Shape.#made = value }
  static { Shape.#made++ }
}
class Square extends Shape<number> implements Iterable<number> {
  override name = "square";
  side: number;
  constructor(side: number) { super(); this.side = side }
  area(this: Square): number { return this.side ** 2 }
  *[Symbol.iterator](): Generator<number> { yield this.side; yield* [1, 2] }
  async load<U>(url: string, ...rest: U[]): Promise<U | undefined> { return await Promise.resolve(rest[0]) }
}
function over(a: string): string;
function over(a: number): number;
function over(a: any): any { return a }
const square: Shape & { side: number } = new Square(3);
const later = async (ms: number): Promise<void> => { await new Promise<void>(done => setTimeout(done, ms)) };
const [first, , third = 3]: number[] = [...(square as unknown as Square)];
export type { Missing };
square.area() + (first as number) + third!;

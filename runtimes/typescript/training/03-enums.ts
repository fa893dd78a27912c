enum Colour { Red, Green = "green".length, Blue = 7 }
const enum Flag { None = 0, Left = 1 << 0, Both = Left | 2 }
namespace Geometry {
  export interface Point { x: number; y: number }
  export const origin: Point = { x: 0, y: 0 };
  export function distance(a: Point, b: Point): number { return Math.hypot(a.x - b.x, a.y - b.y) }
}
class Account {
  constructor(public readonly owner: string, private balance: number = 0) {}
  deposit(amount: number): this { this.balance += amount; return this }
  get total(): number { return this.balance }
}
const cast = <any>new Account("ann").deposit(5);
const names = Object.keys(Colour).filter((key: string) => isNaN(Number(key)));
[Colour.Blue, Colour[0], Flag.Both, Geometry.distance(Geometry.origin, { x: 3, y: 4 }), cast.total, names];

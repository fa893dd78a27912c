interface Row { id: number; name: string; tags?: string[]; parent: Row | null }
type Key = keyof Row;
type Pick2<T, K extends keyof T> = { readonly [P in K]?: T[P] };
type Answer<T> = T extends (infer U)[] ? U : T extends () => infer R ? Promise<R> : never;
declare const given: Row;
const rows: Row[] = [{ id: 1, name: "a", parent: null }, { id: 2, name: 'b', tags: ["x"], parent: null }];
function group<T, K extends string | number>(items: readonly T[], key: (item: T) => K): Record<K, T[]> {
  const out = {} as Record<K, T[]>;
  for (const item of items) (out[key(item)] ??= []).push(item);
  return out;
}
const isRow = (value: unknown): value is Row => typeof value === "object" && value !== null && "id" in value;
let count = 0 as number, label!: string, total: bigint = 10n;
const pair: [first: number, second?: string] = [1];
const config = { retries: 3, urls: [`/${count}`] } satisfies { retries: number; urls: string[] };
const found = rows.find((row: Row): boolean => row.id === 2)!.tags?.[0] ?? "none";
try { group<Row, number>(rows, r => r.id); } catch (error: unknown) { throw error as Error }
if (isRow(rows[0])) { count += 1 } else if (!found) { count -= 1 } else { count *= 2 ** 3 }
const { id, ...rest }: Row = rows[0];
switch (config.retries) { case 3: label = "three"; break; default: label = "other" }
while (count > 10) count--;
do { count++ } while (count < 2);
outer: for (let i: number = 0, n = 3; i < n; i++) { for (const k in rest) { if (k) continue outer } }
[count, total, label, pair, found, /a+(?<x>b)/giu.test(label), typeof id, void 0, -1, ~1, !0, 0x1f, 1e3];

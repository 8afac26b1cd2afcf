// pairs in at least COUNT baskets of a CSV of basket, item by node-fpgrowth; prints seconds, pairs, sum
import { readFileSync } from 'node:fs';
import { FPGrowth } from 'node-fpgrowth';
const [file, count] = process.argv.slice(2);
const baskets = new Map();
for (const line of readFileSync(file, 'utf8').split('\n')) {
  if (!line) continue;
  const [basket, item] = line.split(',').map(Number);
  if (!baskets.has(basket)) baskets.set(basket, []);
  baskets.get(basket).push(item);
}
const transactions = [...baskets.values()];
const began = process.hrtime.bigint();
const found = await new FPGrowth(Number(count) / transactions.length).exec(transactions);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const pairs = found.itemsets ? found.itemsets : found;
const two = pairs.filter((set) => set.items.length === 2);
console.log(seconds, two.length, two.reduce((sum, set) => sum + set.support, 0));

// pair counts of a CSV of basket, item by DuckDB's own self-join; prints seconds, pairs, sum of each of ROUNDS runs
import { DuckDBInstance } from '@duckdb/node-api';
const [file, threads, rounds] = process.argv.slice(2);
const instance = await DuckDBInstance.create(':memory:', { threads });
const connection = await instance.connect();
await connection.run(`CREATE TABLE t AS SELECT * FROM read_csv('${file}', header = false, columns = {'basket': 'INTEGER', 'item': 'INTEGER'})`);
for (let i = 0; i < Number(rounds); i++) {
  const began = process.hrtime.bigint();
  const reader = await connection.runAndReadAll('SELECT count(*), sum(n) FROM (SELECT a.item AS x, b.item AS y, count(*) AS n FROM t a JOIN t b ON b.basket = a.basket AND b.item > a.item GROUP BY 1, 2)');
  const [pairs, sum] = reader.getRows()[0];
  console.log(Number(process.hrtime.bigint() - began) / 1e9, String(pairs), String(sum));
}

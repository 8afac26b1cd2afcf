// Opens the pages of a built Evidence project in a real browser: every query answers, every chart is drawn.
//   node test/report/check_evidence.mjs BUILD-DIRECTORY [DIRECTORY for screenshots]
import {createServer} from 'node:http';
import {readFileSync, writeFileSync, existsSync, statSync, readdirSync} from 'node:fs';
import {join, extname, normalize} from 'node:path';
import {open, quit, sleep, watchdog} from './browser.mjs';

const [root, shots] = process.argv.slice(2);
const types = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.wasm': 'application/wasm', '.svg': 'image/svg+xml', '.png': 'image/png', '.woff2': 'font/woff2'};
const server = createServer((ask, answer) => {
	let path = join(root, normalize(decodeURIComponent(new URL(ask.url, 'http://x').pathname)));
	if (existsSync(path) && statSync(path).isDirectory()) path = join(path, 'index.html');
	if (!existsSync(path)) { answer.writeHead(404).end(); return; }
	answer.writeHead(200, {'Content-Type': types[extname(path)] || 'application/octet-stream'}).end(readFileSync(path));
}).listen(0, '127.0.0.1');
await new Promise(r => server.on('listening', r));

let faults = 0, passed = 0;
const expect = (name, good, detail = '') => { if (good) passed++; else { faults++; console.log(`FAILED  ${name}${detail ? ': ' + detail : ''}`); } };
const timer = watchdog(600);
const pages = ['', ...readdirSync(root).filter(d => existsSync(join(root, d, 'index.html')) && !['api', 'explore', 'settings', 'fix-tprotocol-service-worker'].includes(d))];
for (const page of pages) {
	const name = page || 'index', p = await open(`http://127.0.0.1:${server.address().port}/${page ? page + '/' : ''}`, {width: 1280, height: 900}, false);
	// the charts come when DuckDB, in the page, has read the data; those out of sight when they come into it
	const count = `[document.querySelectorAll('main canvas, main svg[width] path, main .chart').length, document.querySelectorAll('main table').length, (document.querySelector('main')?.innerText || '').length].join()`;
	let before = '', still = 0;
	for (let i = 0; i < 90 && still < 4; i++) {
		await sleep(1000);
		await p.run(`document.querySelector('main')?.scrollIntoView({block: ${i % 2 ? "'start'" : "'end'"}}), 1`);
		const now = await p.run(count);
		still = now === before && i > 12 ? still + 1 : 0;
		before = now;
	}
	const seen = await p.run(`({drawn: document.querySelectorAll('main canvas').length, text: document.querySelector('main').innerText, height: document.documentElement.scrollHeight})`);
	const wrong = seen.text.split('\n').filter(l => /error|no results|dataset is empty|is required|not found|binder|catalog/i.test(l));
	expect(`${name}: no component complains`, wrong.length === 0, wrong.slice(0, 5).join(' | '));
	expect(`${name}: charts are drawn`, seen.drawn > 0 || name === 'watch', `${seen.drawn}`);
	const words = p.words.filter(w => !/favicon|404|ERR_|falling back to full HTTP|deprecat|third-party|preload/i.test(w));
	expect(`${name}: no error on the console`, words.length === 0, words.slice(0, 3).join(' | '));
	console.log(`${name}: ${seen.drawn} charts`);
	if (shots) {
		const {data} = await p.page('Page.captureScreenshot', {format: 'png', captureBeyondViewport: true, clip: {x: 0, y: 0, width: 1280, height: Math.min(seen.height, 2200), scale: 1}});
		writeFileSync(join(shots, `evidence-${name}.png`), Buffer.from(data, 'base64'));
	}
	await p.close();
}
clearTimeout(timer);
await quit();
server.close();
console.log(`${passed} passed, ${faults} failed`);
process.exit(faults ? 1 : 0);

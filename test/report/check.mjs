// Opens a report in a real browser without a network: on a phone, on a desk, in the dark and on paper.
//   node test/report/check.mjs report.html [DIRECTORY for screenshots]
// LOOK='desk phone' leaves some of that out.
import {writeFileSync} from 'node:fs';
import {resolve, join} from 'node:path';
import {pathToFileURL} from 'node:url';
import {open, quit, sleep, watchdog} from './browser.mjs';

const [file, shots] = process.argv.slice(2);

/* --- one look at the page ----------------------------------------------------- */

const faults = [];
let passed = 0;
const expect = (name, good, detail = '') => { if (good) passed++; else faults.push(`${name}${detail ? ': ' + detail : ''}`); };

/* what is drawn, read in the page */
const look = `(() => {
	const hidden = [], empty = [], cards = [...document.querySelectorAll('main section')];
	for (const c of cards) {
		const drawn = [...c.querySelectorAll('.chart')];
		if (drawn.length !== Number(c.dataset.charts)) empty.push(c.id + ' misses a chart');
		for (const d of drawn) {
			const svg = d.querySelector('svg'), marks = svg ? [...svg.querySelectorAll('path')].filter(p => { const b = p.getBBox(); return b.width > 1 || b.height > 1; }).length : 0;
			if (!svg || marks < 2 || !svg.querySelector('text')) empty.push(c.id);
			else if (svg.getBoundingClientRect().right > d.getBoundingClientRect().right + 1) hidden.push(c.id + ' is wider than its card');
			else {
				/* words: inside the picture, and no two on top of each other */
				const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => ({t: t.textContent, b: t.getBoundingClientRect()}));
				for (const {t, b} of texts) if (b.left < box.left - 2 || b.right > box.right + 2 || b.top < box.top - 2 || b.bottom > box.bottom + 2) hidden.push(c.id + ' cuts "' + t + '"');
				for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
					const a = texts[i].b, b = texts[j].b, w = Math.min(a.right, b.right) - Math.max(a.left, b.left), h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
					if (w > 3 && h > 4) hidden.push(c.id + ' has "' + texts[i].t + '" over "' + texts[j].t + '"');
				}
			}
			if (!d.getAttribute('aria-label')) empty.push(c.id + ' has no words for its chart');
		}
		const t = c.querySelector('table');
		if (t && getComputedStyle(t.parentElement).overflowX === 'visible' && t.getBoundingClientRect().right > c.getBoundingClientRect().right) hidden.push(c.id + ' has a table wider than its card');
		if (!c.classList.contains('figures') && !c.querySelector('tbody tr')) empty.push(c.id + ' has no table');
	}
	return {cards: cards.length, charts: document.querySelectorAll('.chart svg').length, ready: document.documentElement.dataset.ready, wide: document.documentElement.scrollWidth - innerWidth, title: document.title, height: document.documentElement.scrollHeight, hidden, empty,
		wrong: document.getElementById('wrong').hidden ? '' : document.getElementById('wrong').textContent, scripts: document.scripts.length, strange: document.querySelectorAll('main img, main script, main iframe').length};
})()`;

async function inspect(view) {
	const p = await open(pathToFileURL(resolve(file)).href, view), name = view.name;
	for (let i = 0; i < 600 && !await p.run(`document.documentElement?.dataset.ready !== undefined || (document.getElementById('wrong') && !document.getElementById('wrong').hidden)`); i++) await sleep(100);
	const seen = await p.run(look);
	expect(`${name}: no error`, seen.wrong === '', seen.wrong);
	expect(`${name}: every chart is drawn`, (seen.charts > 0 || seen.cards < 5) && seen.charts === Number(seen.ready), `${seen.charts} of ${seen.ready}`);
	expect(`${name}: no chart is empty`, seen.empty.length === 0, seen.empty.join(', '));
	expect(`${name}: nothing is cut or lies over another`, seen.hidden.length === 0, seen.hidden.slice(0, 12).join('; '));
	expect(`${name}: nothing is wider than the screen`, seen.wide <= 0, `${seen.wide} px`);
	expect(`${name}: data is text`, seen.strange === 0 && seen.scripts === 3 && /: loyalty report$/.test(seen.title), seen.title);
	if (shots) {
		/* in pieces that an eye can take in */
		for (let n = 0; n * 1800 < seen.height; n++) {
			const {data} = await p.page('Page.captureScreenshot', {format: 'png', captureBeyondViewport: true, clip: {x: 0, y: n * 1800, width: view.width, height: Math.min(1800, seen.height - n * 1800), scale: 1}});
			writeFileSync(join(shots, `${name}-${String(n + 1).padStart(2, '0')}.png`), Buffer.from(data, 'base64'));
		}
	}
	if (view.paper) {
		/* as it will be printed: A4 less its margins */
		await p.page('Emulation.setEmulatedMedia', {media: 'print'});
		await p.page('Emulation.setDeviceMetricsOverride', {width: 703, height: 1000, deviceScaleFactor: 1, mobile: false});
		await p.run(`dispatchEvent(new Event('beforeprint')), 1`);
		const paper = await p.run(look), flat = await p.run(`[...document.querySelectorAll('.chart')].filter(c => c.getBoundingClientRect().height < 60).map(c => c.closest('section').id).join(', ')`);
		expect('paper: every chart is drawn', paper.charts === seen.charts && paper.empty.length === 0 && flat === '', paper.empty.join(', ') + flat);
		expect('paper: nothing is cut or lies over another', paper.hidden.length === 0, paper.hidden.slice(0, 12).join('; '));
		await p.run(`dispatchEvent(new Event('afterprint')), 1`);
		await p.page('Emulation.setEmulatedMedia', {media: '', features: [{name: 'prefers-color-scheme', value: 'light'}]});
		await p.page('Emulation.setDeviceMetricsOverride', {width: view.width, height: view.height, deviceScaleFactor: 1, mobile: false});
		const {data} = await p.page('Page.printToPDF', {preferCSSPageSize: true, printBackground: true});
		const pdf = Buffer.from(data, 'base64'), pages = (pdf.toString('latin1').match(/\/Type\s*\/Page\b/g) || []).length;
		expect('paper: printed', pdf.length > 20000 && pages >= 1 && pages <= 40, `${pdf.length} bytes, ${pages} pages`);
		if (shots) writeFileSync(join(shots, 'paper.pdf'), pdf);
		const after = await p.run(look);
		expect('paper: the screen is as before', after.charts === seen.charts && after.empty.length === 0 && await p.run(`document.querySelectorAll('.card details[open]').length === document.querySelectorAll('.card[data-charts="0"] details').length`), after.empty.join(', '));
	}
	expect(`${name}: silent console`, p.words.length === 0, p.words.slice(0, 5).join(' | '));
	expect(`${name}: asks no network`, p.asked.length === 0, p.asked.slice(0, 5).join(' '));
	await p.close();
	return seen;
}

const timer = watchdog(600);
let seen;
try {
	const views = [{name: 'desk', width: 1280, height: 900, paper: true}, {name: 'phone', width: 375, height: 760, mobile: true}, {name: 'dark', width: 1024, height: 800, dark: true}];
	for (const v of views.filter(v => !process.env.LOOK || process.env.LOOK.split(' ').includes(v.name))) seen = await inspect(v);
} catch (e) {
	faults.push(String(e));
} finally {
	clearTimeout(timer);
	await quit();
}
for (const f of faults) console.log('FAILED  ' + f);
console.log(`report in ${seen ? seen.cards + ' cards, ' + seen.charts + ' charts' : 'no browser'}: ${passed} passed, ${faults.length} failed`);
process.exit(faults.length ? 1 : 0);

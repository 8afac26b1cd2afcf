// A real browser, without anything installed but itself: Chromium, driven over its debugging pipe.
// CHROMIUM names another browser of its family.
import {spawn} from 'node:child_process';
import {mkdtempSync, rmSync, existsSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const profile = mkdtempSync(join(tmpdir(), 'loyalty-report-'));
const browser = spawn(process.env.CHROMIUM || ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync) || 'chromium', [
	'--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
	'--force-color-profile=srgb', `--user-data-dir=${profile}`, '--remote-debugging-pipe', 'about:blank'], {stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe']});

/* --- the browser's protocol: JSON messages that end in a zero byte ---------- */

let last = 0, rest = '';
const waiting = new Map(), listeners = [];
browser.stdio[4].setEncoding('utf8').on('data', text => {
	const parts = (rest + text).split('\0');
	rest = parts.pop();
	for (const m of parts.map(JSON.parse)) {
		if (m.id) { const w = waiting.get(m.id); waiting.delete(m.id); m.error ? w.fail(new Error(m.error.message)) : w.done(m.result); } else for (const l of listeners) l(m);
	}
});
export const call = (method, params = {}, sessionId) => new Promise((done, fail) => {
	waiting.set(++last, {done, fail});
	browser.stdio[3].write(JSON.stringify({id: last, method, params, sessionId}) + '\0');
});
export const sleep = ms => new Promise(r => setTimeout(r, ms));

/* a page that looks like view; words are what it complained of, asked is what it wanted from a network */
export async function open(url, view, offline = true) {
	const {targetId} = await call('Target.createTarget', {url: 'about:blank'});
	const {sessionId} = await call('Target.attachToTarget', {targetId, flatten: true});
	const page = (method, params) => call(method, params, sessionId), words = [], asked = [];
	listeners.push(m => {
		if (m.sessionId !== sessionId) return;
		if (m.method === 'Runtime.exceptionThrown') words.push(m.params.exceptionDetails.exception?.description || m.params.exceptionDetails.text);
		if (m.method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(m.params.type)) words.push(m.params.args.map(a => a.value ?? a.description).join(' '));
		if (m.method === 'Log.entryAdded' && ['error', 'warning'].includes(m.params.entry.level)) words.push(m.params.entry.text);
		if (m.method === 'Network.requestWillBeSent' && !/^(file|data|about|blob):/.test(m.params.request.url) && !m.params.request.url.startsWith(new URL(url).origin + '/')) asked.push(m.params.request.url);
		if (m.method === 'Page.javascriptDialogOpening') { words.push('a dialog: ' + m.params.message); page('Page.handleJavaScriptDialog', {accept: false}); }
	});
	for (const domain of ['Runtime', 'Log', 'Network', 'Page']) await page(domain + '.enable');
	if (offline) await page('Network.emulateNetworkConditions', {offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0});
	await page('Emulation.setDeviceMetricsOverride', {width: view.width, height: view.height, deviceScaleFactor: view.scale || 1, mobile: !!view.mobile});
	await page('Emulation.setEmulatedMedia', {features: [{name: 'prefers-color-scheme', value: view.dark ? 'dark' : 'light'}]});
	await page('Page.navigate', {url});
	const run = async expression => {
		const r = await page('Runtime.evaluate', {expression, returnByValue: true, awaitPromise: true});
		if (r.exceptionDetails) throw new Error(r.exceptionDetails.exception?.description || r.exceptionDetails.text);
		return r.result.value;
	};
	return {page, run, words, asked, close: () => call('Target.closeTarget', {targetId})};
}

/* the browser ends, and what it wrote goes */
export async function quit() {
	const ended = new Promise(r => browser.on('exit', r));
	await Promise.race([call('Browser.close').catch(() => {}).then(() => ended), sleep(5000)]);
	browser.kill('SIGKILL');
	rmSync(profile, {recursive: true, force: true, maxRetries: 5, retryDelay: 200});
}
/* a browser that hangs is no reason to wait for ever */
export const watchdog = seconds => setTimeout(() => { console.error('the browser does not answer'); browser.kill('SIGKILL'); process.exit(1); }, 1000 * seconds);

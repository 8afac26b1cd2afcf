/*
 * The page: data in, cards out. What the database says is put into the page as text, never as HTML.
 */
(() => {
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const about = data[0];
const sections = data.slice(1).map(read);
const scale = 10 ** (about.points_scale || 0);

/* --- what a section's heading says ---------------------------------------- */

function read(raw) {
	const s = {...raw, columns: [], charts: [], views: [], chapter: 'Report'};
	for (const line of raw.spec.split('\n')) {
		const [, key, value] = /^(\w+): ?(.*)$/.exec(line) || [];
		if (key === 'column') {
			const [, name, format, label] = /^(\S+) (\S+) (.*)$/.exec(value);
			s.columns.push({name, format, label});
		} else if (key === 'chart') {
			const [type, ...options] = value.split(' ');
			s.charts.push({type, ...Object.fromEntries(options.map(o => o.split('=')))});
		} else if (key === 'view') s.views = value.split(' ');
		else if (key) s[key] = value;
	}
	return s;
}
const column = (s, name) => s.columns.find(c => c.name === name) || {name, format: 'text', label: name};

/* --- words for values ------------------------------------------------------ */

const language = 'en-GB';
const number = (digits, more) => new Intl.NumberFormat(language, {maximumFractionDigits: digits, ...more});
const money = (() => {
	const m = {style: 'currency', currency: about.currency};
	try { return new Intl.NumberFormat(language, m) && m; } catch { return {}; }
})();
const whole = number(0), one = number(1), two = number(2), short = number(1, {notation: 'compact'});
const coins = number(undefined, money), pounds = number(0, {...money, minimumFractionDigits: 0}), shortMoney = number(1, {...money, notation: 'compact', minimumFractionDigits: 0});
const percent = number(1, {style: 'percent'}), percents = number(0, {style: 'percent'});
const date = (value, form) => new Intl.DateTimeFormat(language, {timeZone: 'UTC', ...form}).format(new Date(value + 'T00:00:00Z'));
const formats = {
	count: v => whole.format(v),
	number: v => two.format(v),
	days: v => one.format(v),
	money: v => coins.format(v),
	points: v => number(about.points_scale || 0).format(v / scale),
	percent: v => percent.format(v),
	times: v => '×' + two.format(v),
	month: v => date(v, {month: 'short', year: 'numeric'}),
	day: v => date(v, {day: 'numeric', month: 'short', year: 'numeric'}),
	yes: v => v ? 'yes' : 'no',
	text: v => String(v),
	code: v => String(v),
};
const numeric = format => ['count', 'number', 'days', 'money', 'points', 'percent', 'times'].includes(format);
const say = (value, format) => value === null || value === undefined ? '–' : (formats[format] || formats.text)(value);
const full = (value, format) => value === null || value === undefined ? '–' : format === 'points' ? say(value, format) + ' ' + about.points_name : say(value, format);
/* on axes */
function brief(value, format) {
	switch (format) {
	case 'money': return Math.abs(value) < 1000 ? pounds.format(value) : shortMoney.format(value);
	case 'points': return short.format(value / scale);
	case 'percent': return percents.format(value);
	case 'month': return date(value, {month: 'short'}) + (/-01-/.test(value) ? '\n' + value.slice(0, 4) : '');
	case 'day': return date(value, {day: 'numeric', month: 'short'});
	case 'times': return say(value, format);
	default: return numeric(format) ? short.format(value) : say(value, format);
	}
}
/* {money 12.5} in a sentence; large sums without the small change */
const sentence = text => text.replace(/\{(\w+) ([^}]*)\}/g, (all, format, value) => format === 'money' && Math.abs(value) >= 1000 ? pounds.format(value) : formats[format] ? full(numeric(format) ? Number(value) : value, format) : all);

/* --- elements -------------------------------------------------------------- */

function make(tag, attributes, ...children) {
	const e = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes || {})) if (value !== undefined && value !== false) e.setAttribute(name, value === true ? '' : value);
	e.append(...children.filter(c => c !== null && c !== undefined));
	return e;
}

/* --- colours ---------------------------------------------------------------- */

function colours() {
	const style = getComputedStyle(document.documentElement), get = name => style.getPropertyValue('--' + name).trim();
	return {series: [1, 2, 3, 4, 5, 6, 7, 8].map(n => get('c' + n)), ink: get('ink'), soft: get('soft'), line: get('line'), card: get('card'), heat: [get('heat0'), get('heat1'), get('heat2')]};
}

/* --- charts ------------------------------------------------------------------ */

const charts = [];	/* {element, chart, draw} */
const font = getComputedStyle(document.body).fontFamily;

function common(c, width) {
	return {
		animation: false, color: c.series, textStyle: {fontFamily: font, color: c.ink},
		aria: {enabled: true, decal: {show: false}},
		tooltip: {confine: true, backgroundColor: c.card, borderColor: c.line, textStyle: {color: c.ink, fontSize: 13}, trigger: 'axis', axisPointer: {type: 'shadow', shadowStyle: {color: c.line, opacity: .35}}},
		legend: {top: 0, left: 0, itemWidth: 12, itemHeight: 12, itemGap: 14, icon: 'roundRect', textStyle: {color: c.soft, fontSize: 12}, type: 'plain', width: width - 8, formatter: cut},
	};
}
const valueAxis = (c, format, more) => ({type: 'value', axisLabel: {color: c.soft, fontSize: 11, formatter: v => brief(v, format), hideOverlap: true}, splitLine: {lineStyle: {color: c.line}}, splitNumber: 4, minInterval: format === 'count' ? 1 : 0, ...more});
const nameAxis = (c, format, more) => ({type: 'category', axisTick: {show: false}, axisLine: {lineStyle: {color: c.line}}, ...more,
	axisLabel: {color: c.soft, fontSize: 11, hideOverlap: true, lineHeight: 13, formatter: v => v === '' ? '–' : brief(v, format), ...(more && more.axisLabel)}});

/* how wide words are */
const pen = document.createElement('canvas').getContext('2d');
const measure = (text, size) => { pen.font = `${size}px ${font}`; return pen.measureText(text).width; };
const cut = text => text.length > 28 ? text.slice(0, 27) + '…' : text;

/* legends wrap: how many lines, so that the plot begins below them */
function legendSpace(names, width) {
	if (names.length < 2) return 8;
	let lines = 1, used = 0;
	for (const n of names) {
		const w = 12 + 5 + measure(cut(n), 12) + 16;
		if (used + w > width - 8 && used > 0) { lines++; used = 0; }
		used += w;
	}
	return 4 + lines * 26;
}

/* rows in long form, one row for each x and series, to one series for each value */
function pivot(s, chart, rows) {
	const x = [...new Set(rows.map(r => r[chart.x]))], names = [...new Set(rows.map(r => r[chart.series]))];
	const at = new Map(rows.map(r => [JSON.stringify([r[chart.x], r[chart.series]]), r[chart.y]]));
	const size = n => rows.reduce((t, r) => t + (r[chart.series] === n ? Math.abs(r[chart.y]) : 0), 0), others = n => /^other/.test(n);
	const sizes = new Map(names.map(n => [n, size(n)]));
	names.sort((a, b) => others(a) - others(b) || sizes.get(b) - sizes.get(a));	/* the largest next to the axis */
	const f = column(s, chart.y).format;
	return {x, series: names.map(n => ({name: say(n, column(s, chart.series).format), format: f, values: x.map(v => at.get(JSON.stringify([v, n])) ?? (chart.type === 'bars' || chart.stack ? 0 : null))}))};
}
function wide(s, chart, rows) {
	const ys = (chart.y || '').split(',').filter(Boolean), lines = (chart.line || '').split(',').filter(Boolean);
	return {x: rows.map(r => r[chart.x]), series: [...ys.map(y => [y, false]), ...lines.map(y => [y, true])].map(([y, line]) => ({name: column(s, y).label, format: column(s, y).format, values: rows.map(r => r[y]), line, quiet: y === chart.quiet})).filter((i, n, all) => all.length < 2 || i.values.some(Number))};
}
/* as wide as the longest name, within reason; longer ones are cut with an ellipsis */
const longest = (names, most) => ({width: Math.min(most, 6 + Math.max(...names.map(n => measure(n, 11)))), overflow: 'truncate', interval: 0, hideOverlap: false});
/* every month, or every second, third, sixth; January always, with its year; where there is none, the first has it */
function months(x, width) {
	const step = [1, 2, 3, 6, 12].find(n => width / x.length * n > 34) || 12, nth = v => Number(v.slice(5, 7)) - 1, years = x.some(v => nth(v) === 0), first = x.find(v => nth(v) % step === 0);
	return {interval: n => nth(x[n]) % step === 0, hideOverlap: false, formatter: v => brief(v, 'month') + (!years && v === first ? '\n' + v.slice(0, 4) : '')};
}

function barsOrLines(s, chart, c, width) {
	const rows = s.rows, p = chart.series ? pivot(s, chart, rows) : wide(s, chart, rows), xFormat = column(s, chart.x).format, flat = chart.horizontal === 'yes';
	const x = p.x.map(v => v === null ? '' : v);
	const first = p.series[0] ? p.series[0].format : 'count', second = p.series.find(i => i.line && i.format !== first);
	const names = p.series.map(i => i.name), top = legendSpace(names, width);
	const o = common(c, width);
	o.legend.show = names.length > 1;
	const label = flat ? {...longest(x.map(v => say(v, xFormat)), Math.min(210, width * .4)), color: c.ink} : xFormat === 'month' ? months(x, width) : xFormat === 'day' ? {interval: 'auto', showMaxLabel: true, alignMinLabel: 'left', alignMaxLabel: 'right'} : {interval: 'auto'};
	const name = nameAxis(c, xFormat, {data: x, inverse: flat, axisLabel: label}), value = [valueAxis(c, first, chart.max ? {max: Number(chart.max)} : {})];
	if (second) value.push(valueAxis(c, second.format, {splitLine: {show: false}}));
	o.grid = {left: 4, right: flat ? (chart.label ? 46 : 16) : 8, top: top + 4, bottom: flat ? 14 : 2, containLabel: true};
	if (flat) { o.yAxis = name; o.xAxis = value; } else { o.xAxis = name; o.yAxis = value; }
	const few = x.length <= 40;
	o.series = p.series.map(i => {
		const line = i.line || chart.type === 'lines', axis = second && i.format === second.format && i.line ? 1 : 0;
		return {
			name: i.name, type: line ? 'line' : 'bar', data: i.values, stack: chart.stack && !i.line ? 'all' : undefined, [flat ? 'xAxisIndex' : 'yAxisIndex']: axis,
			barMaxWidth: flat ? 22 : 34, barCategoryGap: '28%', showSymbol: line && x.length <= 26, symbolSize: 5, smooth: false, lineStyle: {width: i.quiet ? 1 : few ? 2.4 : 2, color: i.quiet ? c.series[7] : undefined}, areaStyle: chart.area ? {opacity: chart.stack ? .75 : .18} : undefined,
			itemStyle: i.quiet ? {color: c.series[7]} : line ? {} : {borderRadius: chart.stack ? 0 : flat ? [0, 3, 3, 0] : [3, 3, 0, 0]},
			label: chart.label && !line ? {show: true, position: flat ? 'right' : 'top', color: c.soft, fontSize: 11, formatter: v => brief(v.value, i.format)} : undefined,
		};
	});
	o.tooltip.formatter = items => tip(say(items[0].axisValue === '' ? null : items[0].axisValue, xFormat), items.map(i => [i.marker, i.seriesName, full(i.value, p.series[i.seriesIndex].format)]));
	return o;
}

/* HTML, every word escaped; marker is the library's own */
function tip(title, rows) {
	const esc = echarts.format.encodeHTML;
	return `<b>${esc(title)}</b>` + rows.map(([marker, name, value]) => `<div style="display:flex;gap:1em;justify-content:space-between"><span>${marker}${esc(name)}</span><b>${esc(value)}</b></div>`).join('');
}

function curve(s, chart, c, width) {
	const xc = column(s, chart.x), yc = column(s, chart.y), names = [...new Set(s.rows.map(r => r[chart.series]))];
	const o = common(c, width);
	o.legend.show = names.length > 1;
	o.grid = {left: 4, right: 22, top: legendSpace(names, width) + 4, bottom: 14, containLabel: true};
	const end = {min: 0, max: 1, interval: .2, axisLine: {show: false}, axisTick: {show: false}};
	o.xAxis = valueAxis(c, xc.format, {...end, splitLine: {show: false}});
	o.yAxis = valueAxis(c, yc.format, end);
	o.series = names.map((n, k) => ({name: say(n, 'text'), type: 'line', showSymbol: false, lineStyle: {width: 2.4, type: k ? 'dashed' : 'solid'}, areaStyle: k ? undefined : {opacity: .12}, data: [[0, 0], ...s.rows.filter(r => r[chart.series] === n).map(r => [r[chart.x], r[chart.y]])],
		markLine: k || !chart.at ? undefined : {silent: true, symbol: 'none', lineStyle: {color: c.soft}, label: {color: c.soft, formatter: say(Number(chart.at), xc.format), position: 'insideEndBottom', rotate: 0, distance: 6}, data: [{xAxis: Number(chart.at)}]}}));
	o.tooltip.axisPointer = {type: 'line'};
	o.tooltip.formatter = items => tip(xc.label + ' ' + say(items[0].value[0], xc.format), items.map(i => [i.marker, i.seriesName, say(i.value[1], yc.format)]));
	return o;
}

function heat(s, chart, c, width) {
	const xc = column(s, chart.x), yc = column(s, chart.y), vc = column(s, chart.value);
	const ordered = (name, f) => { const all = [...new Set(s.rows.map(r => r[name]))]; return f === 'text' ? all : all.sort((a, b) => a < b ? -1 : a > b ? 1 : 0); };
	const xs = ordered(chart.x, xc.format), ys = ordered(chart.y, yc.format);
	const values = s.rows.map(r => r[chart.value]).filter(v => v !== null);
	const low = Math.min(...values, chart.from ? Number(chart.from) : Infinity), high = Math.max(...values), cell = (width - 90) / xs.length;
	const o = common(c, width);
	o.legend.show = false;
	o.grid = {left: 4, right: 6, top: chart.xname ? 44 : 26, bottom: 2, containLabel: true};
	o.xAxis = nameAxis(c, xc.format, {data: xs.map(String), position: 'top', name: chart.xname ? xc.label : '', nameLocation: 'middle', nameGap: 24, nameTextStyle: {color: c.soft, fontSize: 11}, splitArea: {show: false}, axisLine: {show: false}, axisLabel: cell < 15 ? {interval: 'auto'} : {interval: 0, hideOverlap: false, width: Math.max(cell - 4, 12), overflow: 'truncate'}});
	o.yAxis = nameAxis(c, yc.format === 'month' ? 'text' : yc.format, {data: ys.map(v => yc.format === 'month' ? say(v, 'month') : String(v)), inverse: chart.up !== 'yes', axisLine: {show: false}, axisLabel: longest(ys.map(v => say(v, yc.format)), Math.min(130, width * .28))});
	o.visualMap = {show: false, min: low, max: high > low ? high : low + 1, inRange: {color: c.heat}};
	const mid = low + (high - low) * .7;
	o.series = [{type: 'heatmap', data: s.rows.map(r => ({value: [xs.indexOf(r[chart.x]), ys.indexOf(r[chart.y]), r[chart.value]], row: r, label: {color: r[chart.value] > mid ? c.card : c.ink}})),
		itemStyle: {borderColor: c.card, borderWidth: 1.5, borderRadius: 3}, label: {show: cell > 25, fontSize: cell > 34 ? 11 : 9, formatter: v => vc.format === 'percent' ? Math.round(100 * v.data.row[chart.value]) + (cell > 32 ? '%' : '') : brief(v.data.row[chart.value], vc.format)}}];
	o.tooltip = {...o.tooltip, trigger: 'item', formatter: i => tip(say(i.data.row[chart.y], yc.format) + ', ' + (chart.xname ? xc.label + ' ' : '') + say(i.data.row[chart.x], xc.format), s.columns.filter(k => ![chart.x, chart.y].includes(k.name)).map(k => ['', k.label, full(i.data.row[k.name], k.format)]))};
	return o;
}

const kinds = {bars: barsOrLines, lines: barsOrLines, curve, heat};

function height(s, chart) {
	if (chart.height) return Number(chart.height);
	if (chart.type === 'bars' && chart.horizontal === 'yes') return Math.max(120, 40 + new Set(s.rows.map(r => r[chart.x])).size * (chart.y.includes(',') && !chart.stack ? 44 : 30));
	if (chart.type === 'heat') return (chart.xname ? 58 : 40) + new Set(s.rows.map(r => r[chart.y])).size * (s.size === 'wide' ? 26 : 34);
	return 280;
}

function draw(item, paper) {
	const {element, s, chart} = item, own = element.closest('.card').classList.contains('wide');
	const width = paper ? own ? 860 : 420 : Math.max(element.clientWidth, 160), tall = paper ? height(s, chart) * (chart.horizontal || chart.type === 'heat' ? 1 : .8) : Math.min(Math.max(element.clientHeight, height(s, chart)), height(s, chart) * 1.6);
	if (item.drawn) item.drawn.dispose();
	item.drawn = echarts.init(element, null, {renderer: 'svg', width, height: tall});
	item.width = element.clientWidth;
	item.drawn.setOption(kinds[chart.type](s, chart, colours(), width));
	const svg = element.querySelector('svg');
	svg.setAttribute('viewBox', `0 0 ${width} ${tall}`);	/* on paper it takes the width of its column */
	svg.setAttribute('aria-hidden', 'true');
	svg.setAttribute('focusable', 'false');
}

/* --- cards ------------------------------------------------------------------- */

const most = 100, printed = 12, drawnless = 24;	/* rows of a table on the screen, and on paper with a chart and without */

/* a word so long that it must break where there is no place for it, on paper */
const hard = (text, most) => text.split(/\s/).some(word => word.length > most) && 'hard';
const classes = (...names) => names.filter(Boolean).join(' ') || undefined;

function table(s) {
	const head = make('tr', null, ...s.columns.map(c => {
		const text = c.label + (c.format === 'points' ? ', ' + about.points_name : '');
		return make('th', {scope: 'col', class: classes(numeric(c.format) && 'number', hard(text, 11))}, text);
	}));
	const body = s.rows.slice(0, most).map(r => make('tr', null, ...s.columns.map((c, i) => {
		const text = say(r[c.name], c.format);
		return make(i ? 'td' : 'th', {scope: i ? undefined : 'row', class: numeric(c.format) ? 'number' : classes(['day', 'month'].includes(c.format) && 'date', hard(text, 18))}, c.format === 'code' ? make('code', null, text) : text);
	})));
	return make('table', null, make('caption', null, s.title), make('thead', null, head), make('tbody', null, ...body));
}

function cuts(s, has) {
	const all = s.views.map(v => 'SELECT * FROM loyalty.' + v).join(', ');
	return [s.total > most ? make('p', {class: 'cut seen'}, `The first ${Math.min(most, s.rows.length)} rows; all ${whole.format(s.total)}: ${all}`) : null,
		has && s.total > printed ? make('p', {class: 'cut printed'}, `Table of ${whole.format(s.total)} rows, not printed: ${all}`) : !has && s.total > drawnless ? make('p', {class: 'cut printed'}, `The first ${drawnless} rows; all ${whole.format(s.total)}: ${all}`) : null];
}

function freshness(s) {
	if (s.never) return make('span', {class: 'stale'}, 'never refreshed: CALL loyalty.fold_copurchase()');
	if (!s.fresh_at) return make('span', null, 'as of ' + moment(about.made_at));
	const age = (Date.parse(about.made_at) - Date.parse(s.fresh_at)) / 3600000;
	return make('span', {class: age > 48 && 'stale'}, 'as of ' + moment(s.fresh_at) + (age > 48 ? ', ' + whole.format(age / 24) + ' days ago' : ''));
}
const moment = t => new Intl.DateTimeFormat(language, {dateStyle: 'medium', timeStyle: 'short', timeZone: about.time_zone || 'UTC'}).format(new Date(t));

function card(s) {
	const id = 's-' + s.id, has = s.charts.length > 0 && s.charts[0].type !== 'none';
	const c = make('section', {class: 'card' + (s.size === 'wide' ? ' wide' : '') + (has && s.total > printed ? ' long' : ''), id, 'aria-labelledby': id + '-h', 'data-charts': has ? s.charts.length : 0}, make('h3', {id: id + '-h'}, s.title), s.about ? make('p', null, s.about) : null,
		s.say ? make('p', {class: 'say'}, sentence(s.say)) : null);
	if (has) for (const chart of s.charts) {
		const label = `Chart: ${s.title}. ${s.about || ''} ${s.say ? sentence(s.say) : ''} The figures are in the table below.`;
		const element = make('div', {class: 'chart', role: 'img', 'aria-label': label, style: `--height: ${height(s, chart)}px`});
		c.append(element);
		charts.push({element, s, chart});
	}
	const box = make('div', {class: 'table', tabindex: 0, role: 'region', 'aria-label': 'Table: ' + s.title}, table(s));
	c.append(make('details', {open: !has}, make('summary', null, s.total === 1 ? 'Table, 1 row' : `Table, ${whole.format(s.total)} rows`), box, ...cuts(s, has)));
	c.append(make('footer', null, make('code', null, s.views.map(v => 'loyalty.' + v).join(', ')), freshness(s)));
	return c;
}

function tiles(s) {
	return make('section', {class: 'figures', id: 's-' + s.id, 'aria-label': s.title, 'data-charts': 0}, make('dl', {class: 'tiles'}, ...s.rows.map(r => make('div', {class: 'tile'}, make('dt', null, r.label),
		make('dd', null, make('div', {class: 'value'}, r.format === 'money' && Math.abs(r.value) >= 1000 ? pounds.format(r.value) : say(r.value, r.format)), make('div', {class: 'note'}, r.note ? sentence(r.note) : ''))))));
}

/* --- the page ---------------------------------------------------------------- */

function build() {
	document.title = about.program + ': loyalty report';
	document.getElementById('title').textContent = about.program;
	document.getElementById('lead').textContent = `Loyalty report, ${about.as_of ? 'trade up to ' + say(about.as_of, 'day') + ', ' : ''}made ${moment(about.made_at)} (${about.time_zone}). Money in ${about.currency}; points are ${about.points_name}${about.point_value ? `, one is worth ${number(4, money).format(about.point_value)}` : ''}.`;
	const main = document.getElementById('report'), menu = document.getElementById('menu');
	const shown = sections.filter(s => s.total > 0);
	for (const chapter of [...new Set(shown.map(s => s.chapter))]) {
		const id = 'c-' + chapter.toLowerCase().replace(/\W+/g, '-'), own = shown.filter(s => s.chapter === chapter);
		menu.append(make('li', null, make('a', {href: '#' + id}, chapter)));
		main.append(make('h2', {id}, chapter));
		for (const s of own.filter(s => s.charts.some(k => k.type === 'tiles'))) main.append(tiles(s));
		const cards = own.filter(s => !s.charts.some(k => k.type === 'tiles'));
		/* two in a row; one that would stand alone takes the row */
		let place = 0;
		cards.forEach((s, n) => {
			if (s.size !== 'wide' && place % 2 === 0 && (n + 1 === cards.length || cards[n + 1].size === 'wide')) s.size = 'wide';
			place = s.size === 'wide' ? 0 : place + 1;
		});
		if (cards.length) main.append(make('div', {class: 'cards'}, ...cards.map(card)));
	}
	const empty = sections.filter(s => s.total === 0).map(s => s.title), left = about.left_out;
	document.getElementById('end').append(
		make('p', null, `Every number is a row of a view of the schema loyalty, read in one transaction by ${about.role} from ${about.database} (PostgreSQL ${about.server}, loyalty ${about.version}); the view stands below each card. Members appear by their number alone.`),
		empty.length ? make('p', null, 'Nothing to show yet: ' + empty.join(', ') + '.') : '',
		left.length ? make('p', null, 'Left out, because the views are not there or may not be read by this role: ' + left.join(', ') + '.') : '');
	if (about.programs > 1) document.getElementById('end').append(make('p', null, `The database has ${about.programs} programmes; this is one of them.`));
}

function redraw(all, paper) { for (const item of charts) if (all || Math.abs(item.width - item.element.clientWidth) > 4) draw(item, paper); }

function start() {
	build();
	for (const item of charts) draw(item);
	let wait;
	addEventListener('resize', () => { clearTimeout(wait); wait = setTimeout(() => redraw(false), 120); });
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redraw(true));
	/* paper is light, and its columns have a width of their own */
	const opened = new Set();
	addEventListener('beforeprint', () => {
		document.documentElement.classList.add('paper');
		for (const d of document.querySelectorAll('details:not([open])')) { opened.add(d); d.open = true; }
		redraw(true, true);
	});
	addEventListener('afterprint', () => {
		document.documentElement.classList.remove('paper');
		for (const d of opened) d.open = false;
		opened.clear();
		redraw(true);
	});
	document.documentElement.dataset.ready = charts.length;
}
try { start(); } catch (e) {
	document.getElementById('wrong').hidden = false;
	document.getElementById('wrong').textContent = 'This page could not be drawn: ' + e.message;
	throw e;
}
})();

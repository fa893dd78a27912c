// console: what node's writes to a pipe, log, info and debug to stdout, warn, error and trace to stderr.

let groupIndent = '';
const counts = new Map();
const stopwatches = new Map();

function print(fd, args) {
  let text = args.length === 1 && typeof args[0] === 'string' ? args[0] : format(args);
  if (groupIndent) text = groupIndent + arrayJoin(stringSplit(text, '\n'), `\n${groupIndent}`);
  host.write(fd, text + '\n');
}

function durationText(ms) {
  if (ms >= 3600000) return clockText(ms, 3600000, 'h:mm:ss.mmm');
  if (ms >= 60000) return clockText(ms, 60000, 'm:ss.mmm');
  if (ms >= 1000) return `${numberToFixed(ms / 1000, 3)}s`;
  return `${Number(numberToFixed(ms, 3))}ms`;
}

function clockText(ms, unit, pattern) {
  const two = value => stringPadStart(numberToString(value), 2, '0');
  const seconds = numberToFixed((ms % 60000) / 1000, 3);
  const minutes = mathFloor(ms / 60000);
  if (unit === 60000) return `${minutes}:${stringPadStart(seconds, 6, '0')} (${pattern})`;
  return `${mathFloor(minutes / 60)}:${two(minutes % 60)}:${stringPadStart(seconds, 6, '0')} (${pattern})`;
}

function labelOf(label) {
  return label === undefined ? 'default' : `${label}`;
}

// ---- console.table

function rule(left, middle, right, widths) {
  const parts = [];
  for (let i = 0; i < widths.length; i++) push(parts, stringRepeat('─', widths[i]));
  return left + arrayJoin(parts, middle) + right;
}

function tableRow(cells, widths) {
  let row = '│';
  for (let i = 0; i < cells.length; i++) {
    row += ` ${stringPadEnd(cells[i], widths[i] - 2)} │`;
  }
  return row;
}

function drawTable(head, rows) {
  const widths = [];
  for (let i = 0; i < head.length; i++) {
    let width = head[i].length;
    for (let j = 0; j < rows.length; j++) width = mathMax(width, rows[j][i].length);
    push(widths, width + 2);
  }
  let text = `${rule('┌', '┬', '┐', widths)}\n${tableRow(head, widths)}\n${rule('├', '┼', '┤', widths)}\n`;
  for (let j = 0; j < rows.length; j++) text += `${tableRow(rows[j], widths)}\n`;
  return text + rule('└', '┴', '┘', widths);
}

function cellText(value) {
  const deep = value !== null && typeof value === 'object' && !isArray(value) && objectKeys(value).length > 2;
  return inspect(value, { depth: deep ? -1 : 0, maxArrayLength: 3, breakLength: Infinity });
}

/** The rows of a table: [index, value] pairs and the name of the first column. */
function tableEntries(data) {
  const entries = [];
  const kind = brand(data);
  if (kind === 'Map') {
    let i = 0;
    mapForEach(data, (value, key) => push(entries, [`${i++}`, value, key]));
    return { entries, first: '(iteration index)', keyed: true };
  }
  if (kind === 'Set') {
    let i = 0;
    setForEach(data, value => push(entries, [`${i++}`, value]));
    return { entries, first: '(iteration index)', keyed: false };
  }
  const keys = objectKeys(data);
  for (let i = 0; i < keys.length; i++) push(entries, [keys[i], data[keys[i]]]);
  return { entries, first: '(index)', keyed: false };
}

function table(data, wanted) {
  if (data === null || typeof data !== 'object') return print(1, [data]);
  const { entries, first, keyed } = tableEntries(data);
  const names = [];
  let primitives = false;
  for (let i = 0; i < entries.length; i++) {
    const value = entries[i][1];
    if (keyed || value === null || (typeof value !== 'object' && typeof value !== 'function')) primitives = true;
    else {
      const keys = wanted || objectKeys(value);
      for (let j = 0; j < keys.length; j++) addKey(names, `${keys[j]}`);
    }
  }
  if (keyed) names.length = 0;
  const rows = [];
  for (let i = 0; i < entries.length; i++) {
    const value = entries[i][1];
    const isObject = !keyed && value !== null && (typeof value === 'object' || typeof value === 'function');
    const row = [entries[i][0]];
    if (keyed) push(row, cellText(entries[i][2]));
    for (let j = 0; j < names.length; j++) {
      push(row, isObject && hasOwn(value, names[j]) ? cellText(value[names[j]]) : '');
    }
    if (primitives) push(row, isObject ? '' : cellText(value));
    push(rows, row);
  }
  const head = [first];
  if (keyed) push(head, 'Key');
  for (let i = 0; i < names.length; i++) push(head, names[i]);
  if (primitives) push(head, 'Values');
  print(1, [drawTable(head, rows)]);
}

// ---- the object

const consoleMethods = {
  log(...args) { print(1, args); },
  warn(...args) { print(2, args); },
  dir(value, options) { print(1, [inspect(value, { customInspect: false, ...options })]); },
  time(label) {
    label = labelOf(label);
    if (mapHas(stopwatches, label)) print(2, [`Warning: Label '${label}' already exists for console.time()`]);
    else mapSet(stopwatches, label, host.now());
  },
  timeEnd(label) { stop(labelOf(label), 'timeEnd', []); },
  timeLog(label, ...args) { stop(labelOf(label), 'timeLog', args); },
  trace(...args) {
    const error = { name: 'Trace', message: format(args) };
    Error.captureStackTrace(error, consoleMethods.trace);
    const header = error.message ? `Trace: ${error.message}` : 'Trace';
    print(2, [header + (typeof error.stack === 'string' ? error.stack : '')]);
  },
  assert(condition, ...args) {
    if (condition) return;
    args[0] = args.length ? `Assertion failed: ${args[0]}` : 'Assertion failed';
    print(2, args);
  },
  clear() {},
  count(label) {
    label = labelOf(label);
    const count = (mapGet(counts, label) || 0) + 1;
    mapSet(counts, label, count);
    print(1, [`${label}: ${count}`]);
  },
  countReset(label) {
    label = labelOf(label);
    if (mapHas(counts, label)) mapDelete(counts, label);
    else print(2, [`Warning: Count for '${label}' does not exist`]);
  },
  group(...args) {
    if (args.length) print(1, args);
    groupIndent += '  ';
  },
  groupEnd() { groupIndent = stringSlice(groupIndent, 0, -2); },
  table,
};

function stop(label, method, args) {
  if (!mapHas(stopwatches, label)) return print(2, [`Warning: No such label '${label}' for console.${method}()`]);
  const text = `${label}: ${durationText(host.now() - mapGet(stopwatches, label))}`;
  if (method === 'timeEnd') mapDelete(stopwatches, label);
  print(1, args.length ? [text, ...args] : [text]);
}

const consoleObject = create({});
for (const name of ['log', 'warn', 'dir', 'time', 'timeEnd', 'timeLog', 'trace', 'assert', 'clear', 'count', 'countReset',
  'group', 'groupEnd', 'table']) consoleObject[name] = consoleMethods[name];
consoleObject.debug = function debug(...args) { print(1, args); };
consoleObject.info = function info(...args) { print(1, args); };
consoleObject.dirxml = function dirxml(...args) { print(1, args); };
consoleObject.error = function error(...args) { print(2, args); };
consoleObject.groupCollapsed = consoleMethods.group;
define(consoleObject, toStringTag, 'console');
expose({ console: consoleObject });

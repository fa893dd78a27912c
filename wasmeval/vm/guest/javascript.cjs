// The JavaScript harness of a microVM: one warm node, waiting on descriptor 3 for what it shall evaluate.
//
//     node --expose-internals --experimental-vm-modules --no-flush-bytecode javascript.cjs
//
// Descriptor 3 is a SOCK_STREAM unix socket; 0, 1 and 2 are pipes. Internals: for the way in which node's own prompt
// takes `await`. Modules: for `import()`. Bytecode: so that what is warm stays so.
//
// It keeps the guest ABI's frames and the JavaScript image's rules (docs/javascript.md). How errors are told and what
// tools are is the image's own code (`runtimes/javascript/boot`), which gets from here what it expects around it.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const util = require('node:util');
const vm = require('node:vm');
const { createRequire } = require('node:module');
const { types } = util;

const values = require('./values.cjs');
const scripts = require('./scripts.cjs');
const network = require('./proxy.cjs');
const { receive, send, ask } = require('./channel.cjs');
const { renew } = require('./random.cjs');

const REQUEST_BYTES = 16;
const REPLY_BYTES = 32;
const VALUE = 0;
const RAISED = 1;
const TOO_LARGE = 2;
const NOT_JSON = 1;
const HAS_CONTEXT = 1;
const IS_STEP = 2;
const RENEWS_ENTROPY = 4;
const TYPE_BYTES = 256;
const MESSAGE_BYTES = 8192;
const TRACEBACK_BYTES = 32768;

const CONTEXT = 0;
const CALL = 1;
const WAIT = 5;
const NOTHING_UNDER_WAY = -2;
// Between two looks for outcomes when the snippet waits for other things too. Guesses, as in _wasmeval_calls.py.
const SHORTEST_MS = 1;
const LONGEST_MS = 10;

// ---- the image's own code ----

function brand(value) {
  if (value === null || typeof value !== 'object') return '';
  if (types.isProxy(value)) return 'Proxy';
  if (types.isNativeError(value)) return 'Error';
  if (value instanceof DOMException) return 'DOMException';
  return Object.prototype.toString.call(value).slice(8, -1);
}

const host = {
  brand,
  json: values.json,
  parse: (buffer, start, end) => values.parse(Buffer.from(buffer, start, end - start).toString()),
  /** The number of the call that has begun; 0 when the host takes no such call. */
  beginCall(request) {
    const [result, answer] = ask(CALL, Buffer.from(request));
    if (result < 0) return 0;
    watch();
    return answer.readUInt32LE(0);
  },
};

const ERRORS = { __proto__: null, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

function loadShared() {
  const wellFormed = Object.getOwnPropertyDescriptor(String.prototype, 'toWellFormed');
  // New in node 20, and of the parts that are shared none needs it.
  if (!wellFormed) Object.defineProperty(String.prototype, 'toWellFormed', { value() {}, configurable: true });
  const names = ['primordials.js', 'calls.js', 'report.js'];
  const source = names.map(name => fs.readFileSync(path.join(__dirname, name), 'utf8')).join('\n');
  const text = `${source}
needOf = () => ''; // nothing is lacking here: what node does not have is an error like any other
return { grant, settle, abandon, describe, underWay };`;
  const parameters = ['host', 'inspect', 'brand', 'isDOMException', 'moduleOf', 'ERRORS'];
  const made = vm.compileFunction(text, parameters, { filename: path.join(__dirname, 'shared.js') });
  const shared = made(host, util.inspect, brand, value => brand(value) === 'DOMException', () => null, ERRORS);
  if (!wellFormed) delete String.prototype.toWellFormed;
  return shared;
}

const shared = loadShared();

// ---- calls that are under way ----

let watching = false;

function watch() {
  if (watching) return;
  watching = true;
  setImmediate(look, SHORTEST_MS);
}

/** Hands on what has ended: waits in the host when nothing else can happen here, else looks again in a moment. */
function look(pause) {
  watching = false;
  if (!shared.underWay.size) return;
  const idle = isIdle();
  let came = settleOne(idle ? -1n : 0n);
  while (came && shared.underWay.size && settleOne(0n));
  if (!shared.underWay.size) return;
  watching = true;
  if (came || idle) setImmediate(look, SHORTEST_MS);
  else setTimeout(() => setImmediate(look, Math.min(pause * 2, LONGEST_MS)), pause);
}

function settleOne(timeout) {
  const body = Buffer.alloc(12);
  body.writeBigInt64LE(timeout, 0);
  const [result, answer] = ask(WAIT, body);
  if (result === NOTHING_UNDER_WAY) {
    shared.abandon();
    return false;
  }
  if (result <= 0) return false;
  const outcome = new Uint8Array(answer.subarray(8)).buffer;
  shared.settle(answer.readUInt32LE(0), answer[4], outcome);
  return true;
}

let resources = [];

/** Whether nothing but the host can go on: no timer, socket, file, process or thread of the snippet's. */
function isIdle() {
  const now = process.getActiveResourcesInfo();
  for (const known of resources) {
    const at = now.indexOf(known);
    if (at >= 0) now.splice(at, 1);
  }
  return now.length === 0;
}

// ---- one evaluation ----

/** What is being evaluated; null between steps. */
let evaluation = null;
let steps = 0;

class Exit extends Error {}

function readRequest(frame) {
  const flags = frame.readUInt16LE(2);
  const end = REQUEST_BYTES + frame.readUInt32LE(8);
  if (frame.length < REQUEST_BYTES || frame.readUInt16LE(0) !== 1 || frame.length !== end + frame.readUInt32LE(12)) {
    throw new RangeError('the request is not a frame of ABI version 1');
  }
  const isStep = (flags & IS_STEP) !== 0;
  return {
    flags,
    isStep,
    limit: frame.readUInt32LE(4),
    code: frame.toString('utf8', REQUEST_BYTES, end),
    inputs: frame.toString('utf8', end),
    file: isStep ? `<step ${++steps}>` : '<snippet>',
    settled: false,
    value: undefined,
  };
}

function define(name, value) {
  Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
}

function begin(request) {
  evaluation = request;
  const { flags, isStep, code, file, inputs } = request;
  process.exit = isStep ? exitStep : exit;
  const context = flags & HAS_CONTEXT ? values.parse(ask(CONTEXT)[1].toString()) : null;
  network.allow(context !== null && context.http === true);
  shared.grant(context);
  define(scripts.COMPLETION, undefined);
  if (inputs) for (const [name, value] of Object.entries(values.parse(inputs))) define(name, value);
  run(code, file).then(
    value => {
      if (evaluation === request) Object.assign(request, { settled: true, value });
    },
    error => {
      if (evaluation === request) fail(error);
    },
  );
}

async function run(code, file) {
  const { start, boxed, columnOf } = scripts.compile(code, file);
  if (evaluation !== null) evaluation.columnOf = columnOf;
  const value = boxed ? (await start())?.value : await start();
  delete globalThis[scripts.COMPLETION];
  return value;
}

/** Written down when nothing more can happen. */
function succeed() {
  const { settled, value, limit } = evaluation;
  if (!settled) {
    fail(new Error('top-level await never settles: nothing is left that could settle it'));
    return;
  }
  const status = process.exitCode ?? 0;
  if (status !== 0) {
    process.exitCode = undefined;
    reply(RAISED, { type: 'ExitStatus', message: `exit status ${status}` });
    return;
  }
  try {
    const [text, flags] = described(value, limit);
    reply(VALUE, { value: text, flags });
  } catch (error) {
    if (!(error instanceof values.TooLarge)) throw error;
    reply(TOO_LARGE, { type: 'OutputTooLarge', message: `the value is larger than output_bytes (${limit})` });
  }
}

function described(value, limit) {
  try {
    return [values.encode(value, limit), 0];
  } catch (error) {
    if (error instanceof values.TooLarge) throw error;
  }
  return [values.encode({ repr: inspected(value), type: typeName(value) }, limit), NOT_JSON];
}

function inspected(value) {
  try {
    return util.inspect(value);
  } catch (error) {
    return `[${typeName(value)}: ${error}]`;
  }
}

function typeName(value) {
  try {
    if (typeof value === 'symbol') return 'symbol';
    const name = value.constructor?.name;
    return typeof name === 'string' && name ? name : 'Object';
  } catch {
    return 'Object';
  }
}

function fail(error) {
  if (error instanceof Exit) {
    ended(Number(error.message));
    return;
  }
  let told;
  try {
    mend(error);
    told = shared.describe(error, evaluation.code, evaluation.file);
  } catch {
    told = [RAISED, 'Error', '', '', 0, 0];
  }
  const [outcome, type, message, traceback, line, column] = told;
  reply(outcome, { type, message, traceback, line, column });
}

/** Puts the places in an error's stack right: those of a script that was wrapped, and that of an import statement. */
function mend(error) {
  const { code, file, columnOf } = evaluation;
  if (!types.isNativeError(error) || typeof error.stack !== 'string') return;
  const put = (whole, name, line, column) => {
    return name === file && columnOf ? `${name}:${line}:${columnOf(+line, +column)}` : whole;
  };
  const lines = error.stack.split('\n').map(text => text.replace(PLACE, put));
  let stack = lines.filter(text => !WRAPPING.test(text)).join('\n');
  if (error.code === 'ERR_MODULE_NOT_FOUND' && !stack.includes(file)) {
    const name = /'([^']*)'/.exec(error.message)?.[1];
    const line = code.split('\n').findIndex(text => text.includes('import') && text.includes(name));
    if (line >= 0) stack += `\n    at ${file}:${line + 1}:1`;
  }
  if (stack === error.stack) return;
  Object.defineProperty(error, 'stack', { value: stack, writable: true, configurable: true });
}

const PLACE = /(<snippet>|<step \d+>):(\d+):(\d+)/;
const WRAPPING = /^ {4}at .*<(?:snippet|step \d+)>:\d+:0\)?$/;

/** The snippet has called process.exit. */
function ended(status) {
  if (status === 0) reply(VALUE, { value: 'null' });
  else reply(RAISED, { type: 'ExitStatus', message: `exit status ${status}` });
}

function reply(outcome, { value = '', flags = 0, type = '', message = '', traceback = '', line = 0, column = 0 }) {
  const texts = [
    Buffer.from(value), cut(type, TYPE_BYTES), cut(message, MESSAGE_BYTES), cut(traceback, TRACEBACK_BYTES),
  ];
  const header = Buffer.alloc(REPLY_BYTES);
  const fields = [outcome, flags, ...texts.map(text => text.length), line, column];
  fields.forEach((field, i) => header.writeUInt32LE(field, 4 * i));
  const { isStep } = evaluation;
  evaluation = null;
  deliver(header, texts, isStep);
}

let deliver = deliverToAgent;

function deliverToAgent(header, texts, isStep) {
  send('R', header, ...texts);
  if (!isStep) reallyExit(0);
  // What the step left (timers, sockets) goes on in the next one.
  setImmediate(next);
}

/** UTF-8 of at most `limit` bytes, cut in the middle. */
function cut(text, limit) {
  const bytes = Buffer.from(text);
  if (bytes.length <= limit) return bytes;
  const mark = Buffer.from(limit > 1024 ? '\n[...]\n' : '...');
  const head = (limit - mark.length) >> 1;
  const tail = limit - mark.length - head;
  const start = bytes.subarray(0, head).toString().replace(/\ufffd$/, '');
  const end = bytes.subarray(bytes.length - tail).toString().replace(/^\ufffd+/, '');
  return Buffer.concat([Buffer.from(start), mark, Buffer.from(end)]);
}

// ---- the ends of an evaluation ----

const { exit } = process;
const reallyExit = process.reallyExit.bind(process);

/** In a step it is the step that ends, not the session. */
function exitStep(status) {
  throw new Exit(String(Number(status ?? process.exitCode ?? 0)));
}

process.reallyExit = status => {
  if (evaluation !== null) ended(status ?? 0);
  reallyExit(status);
};

/** The snippet's listeners come first, and what they begin is waited for. */
function whenNothingIsLeft() {
  const listeners = process.listeners('beforeExit');
  if (listeners.at(-1) !== whenNothingIsLeft) {
    process.off('beforeExit', whenNothingIsLeft);
    process.on('beforeExit', whenNothingIsLeft);
    setImmediate(() => {});
    return;
  }
  if (listeners.length > 1 && !isIdle()) return;
  if (evaluation === null) return;
  if (!evaluation.isStep && evaluation.settled) process.emit('exit', process.exitCode ?? 0);
  succeed();
}

/** How many listeners there are without the snippet's: modules of node's own have some. */
const listeners = {};

function whenUncaught(event) {
  return error => {
    // One that the snippet listens for itself is no failure of it.
    if (process.listenerCount(event) > listeners[event]) return;
    if (evaluation !== null) fail(error);
  };
}

process.on('beforeExit', whenNothingIsLeft);
process.on('uncaughtException', whenUncaught('uncaughtException'));
process.on('unhandledRejection', whenUncaught('unhandledRejection'));

// ---- the process ----

let first = true;

/** Reads the next request, for as long as it takes, and begins it. */
function next() {
  for (;;) {
    const [kind, frame] = receive();
    if (kind !== 'E') continue;
    const request = readRequest(frame);
    if (first || request.flags & RENEWS_ENTROPY) renew();
    first = false;
    begin(request);
    // A step that leaves nothing to the event loop is over when that is empty: it must turn once more.
    setImmediate(() => {});
    return;
  }
}

function setUpGlobals() {
  const folder = process.cwd();
  const required = createRequire(path.join(folder, 'snippet.js'));
  define('require', required);
  define('module', { exports: {}, id: '.', filename: null, loaded: false, children: [], paths: [] });
  define('exports', module.exports);
  define('__filename', '<snippet>');
  define('__dirname', folder);
  process.argv.length = 1;
  process.execArgv.length = 0;
}

const COMMON = ['assert', 'buffer', 'child_process', 'crypto', 'dns', 'events', 'fs/promises', 'http', 'https', 'net',
  'os', 'path', 'querystring', 'readline', 'stream', 'stream/promises', 'string_decoder', 'timers/promises', 'tls', 'url',
  'v8', 'vm', 'worker_threads', 'zlib'];
const LAZY = ['fetch', 'Response', 'FormData', 'WebSocket', 'Blob', 'crypto', 'structuredClone'];

async function warmUp() {
  for (const name of COMMON) require(`node:${name}`);
  // Loaded lazily by the getters of these names.
  for (const name of LAZY) void globalThis[name];
  scripts.compile("import { sep } from 'node:path'\ntry { await sep } catch { sep }", '<snippet>');
  const { emitWarning } = process;
  process.emitWarning = () => {}; // that the loader of `import()` is experimental, which is told once
  renew();
  for (const code of WARM_UP) await warmUpBy(code);
  process.emitWarning = emitWarning;
}

/** Takes a snippet along the way of every snippet, up to its reply. */
async function warmUpBy(code) {
  const text = Buffer.from(code);
  const inputs = Buffer.from('{"undefinedInput": [1, "x", null]}');
  const frame = Buffer.alloc(REQUEST_BYTES);
  [1, 1 << 20, text.length, inputs.length].forEach((field, i) => frame.writeUInt32LE(field, 4 * i));
  const request = readRequest(Buffer.concat([frame, text, inputs]));
  const replied = new Promise(resolve => { deliver = resolve; });
  begin(request);
  while (evaluation === request && !request.settled) await new Promise(setImmediate);
  if (evaluation === request) succeed();
  await replied;
  delete globalThis.undefinedInput;
}

const WARM_UP = [
  ...Array(20).fill('1 + 1'),
  '({ a: [1, { b: "é" }], c: 12345678901234567890n })',
  'await Promise.resolve([1, 2, 3].map(n => n * 2))',
  "(await import('node:path')).sep",
  'new Set([1, { a: [new Date(0)] }])',
  "(function f(n) { throw new TypeError('x'.repeat(n)) })(3)",
  'undefinedName',
  'let = ;',
  "JSON.parse('{')",
  'new Promise(done => setTimeout(done, 1, 5))',
];

async function main() {
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
  setUpGlobals();
  await warmUp();
  deliver = deliverToAgent;
  globalThis.gc?.();
  resources = process.getActiveResourcesInfo();
  for (const event of ['uncaughtException', 'unhandledRejection']) listeners[event] = process.listenerCount(event);
  send('W');
  next();
}

main();

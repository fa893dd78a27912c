// The JavaScript harness of a microVM: one warm node, waiting on descriptor 3 for what it shall evaluate.
//
//     node --expose-internals --experimental-vm-modules javascript.cjs    # descriptor 3: a SOCK_STREAM unix socket
//
// It keeps the guest ABI's frames and the JavaScript image's rules (docs/javascript.md). How errors are told and what tools
// are is the image's own code (`runtimes/javascript/boot`), which gets from here what it expects of the image around it.
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

const CHANNEL = 3;
const HEAD_BYTES = 5;
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

// ---- the channel ----

function readExactly(length) {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length;) {
    const count = fs.readSync(CHANNEL, bytes, at, length - at, null);
    if (count === 0) reallyExit(0); // the agent is gone
    at += count;
  }
  return bytes;
}

function receive() {
  const head = readExactly(HEAD_BYTES);
  return [String.fromCharCode(head[4]), readExactly(head.readUInt32LE(0))];
}

function send(kind, ...parts) {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(parts.reduce((sum, part) => sum + part.length, 0), 0);
  head[4] = kind.charCodeAt(0);
  const bytes = Buffer.concat([head, ...parts]);
  for (let at = 0; at < bytes.length;) at += fs.writeSync(CHANNEL, bytes, at);
}

/** [result, answer] of a host operation; the answer is a buffer. */
function ask(operation, body = Buffer.alloc(0)) {
  send('H', Buffer.from([operation]), body);
  for (;;) {
    const [kind, payload] = receive();
    if (kind === 'A') return [payload.readInt32LE(0), payload.subarray(4)];
  }
}

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
  const [start, boxed] = scripts.compile(code, file);
  return boxed ? (await start())?.value : await start();
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
    told = shared.describe(error, evaluation.code, evaluation.file);
  } catch {
    told = [RAISED, 'Error', '', '', 0, 0];
  }
  const [outcome, type, message, traceback, line, column] = told;
  reply(outcome, { type, message, traceback, line, column });
}

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
  [outcome, flags, ...texts.map(text => text.length), line, column].forEach((field, i) => header.writeUInt32LE(field, 4 * i));
  const { isStep } = evaluation;
  evaluation = null;
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

// ---- randomness ----

/** A generator for Math.random with 128 bits of state from the kernel: V8's own is seeded once, before the snapshot. */
function freshRandom() {
  const seed = new Uint32Array(4);
  entropy(Buffer.from(seed.buffer));
  seed[3] |= 1;
  let [a, b, c, d] = seed;
  // xoshiro128**. Source: https://prng.di.unimi.it/xoshiro128starstar.c
  const next = () => {
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  return { random() { return ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000; } }.random;
}

let kernel = -1;

function entropy(bytes) {
  if (kernel < 0) kernel = fs.openSync('/dev/urandom');
  for (let at = 0; at < bytes.length;) at += fs.readSync(kernel, bytes, at, bytes.length - at, null);
}

/** Whatever was drawn before the snapshot is drawn anew. OpenSSL does so itself when the clock has leapt. */
function renew() {
  setRandom(freshRandom());
  const seed = new Int32Array(1);
  entropy(Buffer.from(seed.buffer));
  // For contexts that the snippet makes: V8 would seed them from a state that other clones have too.
  require('node:v8').setFlagsFromString(`--random-seed=${(seed[0] & 0x7fffffff) | 1}`);
}

function setRandom(random) {
  Object.defineProperty(Math, 'random', { value: random, writable: true, enumerable: false, configurable: true });
}

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

async function warmUp() {
  for (const name of ['assert', 'buffer', 'child_process', 'crypto', 'dns', 'events', 'fs/promises', 'http', 'https', 'net',
    'os', 'path', 'querystring', 'readline', 'stream', 'stream/promises', 'string_decoder', 'timers/promises', 'tls', 'url',
    'v8', 'vm', 'worker_threads', 'zlib']) require(`node:${name}`);
  // Loaded lazily by the getters of these names.
  for (const name of ['fetch', 'Response', 'FormData', 'WebSocket', 'Blob', 'crypto', 'structuredClone']) void globalThis[name];
  const { emitWarning } = process;
  process.emitWarning = () => {}; // that the loader of `import()` is experimental, which is told once
  for (const code of WARM_UP) {
    try {
      const [text] = described(await run(code, '<snippet>'), 1 << 20);
      values.parse(text);
    } catch (error) {
      shared.describe(error, code, '<snippet>');
    }
  }
  process.emitWarning = emitWarning;
}

const WARM_UP = [
  ...Array(20).fill('1 + 1'),
  'var __a = { a: [1, 2.5, null, "x", 10n ** 20n], b: new Map([[1, 2]]) }; delete globalThis.__a; undefined',
  '({ a: [1, { b: "é" }], c: 12345678901234567890n })',
  'await Promise.resolve([1, 2, 3].map(n => n * 2))',
  "(await import('node:path')).sep",
  "import { sep as __sep } from 'node:path'\n(() => __sep)()",
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
  console.log.bind(console); // the console itself is made with its first line
  globalThis.gc?.();
  resources = process.getActiveResourcesInfo();
  for (const event of ['uncaughtException', 'unhandledRejection']) listeners[event] = process.listenerCount(event);
  send('W');
  next();
}

main();

// Calls of the host: what is under way, and tools. C counts the calls, waits for them, and hands each outcome to `settle`.
// Source: runtimes/abi.md, "Host operations"

const DONE = 0;
const RAISED = 1;
const LIMIT = 2;
const REFUSED = 3;

const underWay = new Map(); // number of a call -> takes its kind and outcome
const grants = { http: false, writable: ['/workspace', '/tmp'] };

// Errors that say the snippet needs what it does not have -> what the report says of them when nobody catches them.
const needs = new WeakMap();

class ToolError extends Error {}
class ToolLimitError extends Error {}
define(ToolError.prototype, 'name', 'ToolError');
define(ToolLimitError.prototype, 'name', 'ToolLimitError');

/** Called once, before the snippet runs, with what the host gives this evaluation. */
function grant(context) {
  if (context === null) return;
  grants.http = context.http === true;
  const { tools, mounts } = context;
  for (let i = 0; i < mounts.length; i++) if (!mounts[i].read_only) push(grants.writable, mounts[i].path);
  if (!tools.length) return;
  expose({ ToolError, ToolLimitError });
  for (let i = 0; i < tools.length; i++) define(globalThis, tools[i].name, toolFunction(tools[i]));
}

function settle(number, kind, buffer) {
  const take = mapGet(underWay, number);
  mapDelete(underWay, number);
  if (take) take(kind, buffer);
}

/** The host says that nothing is under way, so nothing will come for what still waits. */
function abandon() {
  const waiting = [];
  mapForEach(underWay, take => push(waiting, take));
  mapClear(underWay);
  for (let i = 0; i < waiting.length; i++) waiting[i](-1, null);
}

function outcomeOf(buffer) {
  if (buffer === null) return { type: 'gone', message: 'nobody answers this call any more' };
  return host.parse(buffer, 0, bufferBytes(buffer));
}

/** Gives an error the frames of another one, made where the snippet made the call: its own are of the event loop. */
function placedAt(error, site) {
  const { stack } = site;
  const at = typeof stack === 'string' ? stringIndexOf(stack, '\n') : -1;
  define(error, 'stack', errorToString(error) + (at < 0 ? '' : stringSlice(stack, at)));
  return error;
}

// ---- tools ----

function toolFunction(tool) {
  // awaited here: what is returned would be adopted by whatever `then` the snippet has given promises
  const call = async function (...args) { return await callTool(tool, args); };
  const signature = tool.signature || '(...)';
  const doc = tool.doc ? `/** ${arrayJoin(stringSplit(tool.doc, '*/'), '*\\/')} */\n` : '';
  const text = `${doc}async function ${tool.name}${signature} { [native code] }`;
  define(call, 'name', tool.name);
  define(call, 'length', tool.parameters.length);
  define(call, 'signature', tool.signature);
  define(call, 'parameters', tool.parameters);
  define(call, 'doc', tool.doc);
  define(call, 'toString', { toString() { return text; } }.toString);
  return call;
}

function callTool(tool, args) {
  const site = new Error();
  const request = requestOf(tool, args);
  return new Promise((resolve, reject) => {
    const number = host.beginCall(request);
    if (!number) throw refusedCall(tool, request);
    mapSet(underWay, number, (kind, buffer) => {
      try {
        const outcome = outcomeOf(buffer);
        if (kind === DONE) resolve(outcome);
        else reject(placedAt(toolError(tool, kind, outcome), site));
      } catch (error) {
        reject(error);
      }
    });
  });
}

/** Why the host took the call for none: it does so with requests that are far too long to read. */
function refusedCall(tool, request) {
  const error = new ToolLimitError(
    `${tool.name}: the host takes no call with ${request.length} characters of arguments; send less or raise limits.tool_call_bytes`);
  define(error, 'limit', 'tool_call_bytes');
  return error;
}

function toolError(tool, kind, outcome) {
  const message = `${outcome.message}`;
  if (kind === RAISED) {
    const Class = ERRORS[outcome.type];
    if (Class) return new Class(message);
    const error = new Error(message);
    if (outcome.type) define(error, 'name', `${outcome.type}`);
    return error;
  }
  if (kind === LIMIT) {
    const error = new ToolLimitError(message);
    define(error, 'limit', outcome.limit);
    return error;
  }
  return new ToolError(`${tool.name}: ${message}`);
}

function requestOf(tool, args) {
  let named = '';
  const last = args.length - 1;
  if (last >= 0 && isNamed(args[last], tool.parameters, last)) {
    named = namedText(tool, args[last]);
    args.length = last;
  }
  let given = '';
  for (let i = 0; i < args.length; i++) given += (i ? ',' : '') + argumentText(tool, `${i + 1}`, args[i]);
  return `{"name":${host.json(tool.name)},"args":[${given}],"kwargs":{${named}}}`;
}

/** Whether a last argument stands for parameters by name: all its keys are names that no position has taken. */
function isNamed(value, parameters, positions) {
  if (value === null || typeof value !== 'object' || brand(value) !== 'Object') return false;
  const prototype = getPrototypeOf(value);
  if (prototype !== null && prototype !== objectPrototype) return false;
  const keys = objectKeys(value);
  for (let i = 0; i < keys.length; i++) {
    let free = false;
    for (let j = positions; j < parameters.length; j++) free ||= parameters[j] === keys[i];
    if (!free) return false;
  }
  return keys.length > 0;
}

function namedText(tool, value) {
  const keys = objectKeys(value);
  let text = '';
  for (let i = 0; i < keys.length; i++) {
    const item = value[keys[i]];
    if (item !== undefined) text += `${text && ','}${host.json(keys[i])}:${argumentText(tool, `'${keys[i]}'`, item)}`;
  }
  return text;
}

function argumentText(tool, which, value) {
  const text = host.json(value);
  if (text !== null) return text;
  throw new TypeError(`${tool.name}: argument ${which} is ${inspect(value, { depth: 0 })}, which JSON cannot say; ` +
    'send plain objects, arrays, strings, numbers, BigInts, booleans or null');
}

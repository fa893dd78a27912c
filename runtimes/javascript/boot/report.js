// What an uncaught error becomes in the reply: its name, message, traceback and place, and whether it says that the
// snippet needs something this runtime does not have.

const ABSENT = {
  __proto__: null,
  Intl: 'internationalisation (Intl)',
  process: "node's process object",
  module: 'a module system (module)',
  exports: 'a module system (exports)',
  __dirname: 'a file system (__dirname)',
  __filename: 'a file system (__filename)',
  XMLHttpRequest: 'the network (XMLHttpRequest)',
  WebSocket: 'the network (WebSocket)',
  EventSource: 'the network (EventSource)',
  WebAssembly: 'WebAssembly',
  Worker: 'threads (Worker)',
  SharedArrayBuffer: 'threads (SharedArrayBuffer)',
  Atomics: 'threads (Atomics)',
  MessageChannel: 'threads (MessageChannel)',
  BroadcastChannel: 'threads (BroadcastChannel)',
  FileReader: 'files (FileReader)',
  ReadableStream: 'streams (ReadableStream)',
  WritableStream: 'streams (WritableStream)',
  TransformStream: 'streams (TransformStream)',
  document: "a browser's document",
  window: "a browser's window",
  navigator: "a browser's navigator",
  localStorage: "a browser's storage (localStorage)",
  sessionStorage: "a browser's storage (sessionStorage)",
  alert: "a browser's dialogs (alert)",
  prompt: "a browser's dialogs (prompt)",
  confirm: "a browser's dialogs (confirm)",
  requestAnimationFrame: "a browser's display (requestAnimationFrame)",
  Temporal: 'Temporal',
  Deno: 'Deno',
  Bun: 'Bun',
};

const NOT_DEFINED = /^'?([A-Za-z_$][\w$]*)'? is not defined$/;
const NO_MODULE = /^could not load module (?:filename )?'([^]*)'$/;
const IMPORTED = /\bimport\b[^'"`\n]*(['"])([^'"\n]*)\1/;
const PLACE = />:(\d+):(\d+)/;
const FRAME = /^ {4}at .*<(?:snippet|step \d+)>/;

/** The value of a property, or undefined where reading it throws. */
function peek(object, name) {
  try {
    return object[name];
  } catch {
    return undefined;
  }
}

/** The frames of an error's stack that are the snippet's, or of a session's earlier steps. */
function framesOf(error) {
  const stack = peek(error, 'stack');
  if (typeof stack !== 'string') return [];
  const frames = [];
  const lines = stringSplit(stack, '\n');
  for (let i = 0; i < lines.length; i++) if (regExpTest(FRAME, lines[i])) push(frames, lines[i]);
  return frames;
}

/** Line and column of the innermost frame that is in `file`; zeros when none is. */
function placeOf(frames, file) {
  for (let i = 0; i < frames.length; i++) {
    const place = stringIncludes(frames[i], file) ? regExpExec(PLACE, frames[i]) : null;
    if (place) return [+place[1], +place[2]];
  }
  return [0, 0];
}

function isError(value) {
  return typeof value === 'object' && value !== null && (brand(value) === 'Error' || isDOMException(value));
}

function textOf(value) {
  return typeof value === 'string' ? value : inspect(value);
}

/** `<snippet>:3`, the line itself and a mark below its column, as node prints them above a traceback. */
function excerpt(file, code, line, column) {
  const lines = stringSplit(code, /\r\n|[\n\r\u2028\u2029]/);
  if (line < 1 || line > lines.length) return '';
  const source = lines[line - 1];
  if (source.length > 400) return `${file}:${line}\n`;
  const mark = column ? stringRepeat(' ', mathMin(column - 1, source.length)) + '^\n' : '';
  return `${file}:${line}\n${source}\n${mark}\n`;
}

/** The first line that imports the module: import() fails in a job of its own, whose frame is of no help. */
function lineOfImport(code, name) {
  const lines = stringSplit(code, '\n');
  for (let i = 0; i < lines.length; i++) {
    if (stringIncludes(lines[i], 'import') && stringIncludes(lines[i], name)) return i + 1;
  }
  return 0;
}

/** What an error says is missing here, or '' when it says no such thing. */
function needOf(name, message, code, line) {
  let found = regExpExec(NO_MODULE, message);
  if (found) return `the module '${found[1]}'`;
  const source = line ? stringSplit(code, '\n')[line - 1] || '' : '';
  if (name === 'ReferenceError' && (found = regExpExec(NOT_DEFINED, message))) {
    return ABSENT[found[1]] || '';
  }
  if (name === 'SyntaxError' && regExpTest(/^\s*(import|export)\b/, source)) {
    const statement = regExpExec(IMPORTED, source);
    if (!statement) return 'modules (import and export)';
    if (moduleOf(statement[2])) return "import statements behind other code (put them first, or use require)";
    return `the module '${statement[2]}'`;
  }
  return '';
}

/** The causes and gathered errors below an error, indented as node's inspect does. */
function describeCauses(error, seen) {
  let text = '';
  if (seen.length > 8) return text;
  push(seen, error);
  if (isError(error) && hasOwn(error, 'cause')) text += causeText('[cause]', peek(error, 'cause'), seen);
  const errors = isError(error) && hasOwn(error, 'errors') ? peek(error, 'errors') : undefined;
  if (isArray(errors)) {
    for (let i = 0; i < mathMin(errors.length, 20); i++) text += causeText(`[errors ${i}]`, errors[i], seen);
  }
  return text;
}

function causeText(label, value, seen) {
  for (let i = 0; i < seen.length; i++) if (seen[i] === value) return `\n  ${label}: [Circular]`;
  const text = isError(value) ? headerOf(value) + framesText(framesOf(value)) + describeCauses(value, seen) : inspect(value);
  return `\n  ${label}: ${arrayJoin(stringSplit(text, '\n'), '\n  ')}`;
}

function headerOf(error) {
  try {
    return errorToString(error);
  } catch {
    return 'Error';
  }
}

function framesText(frames) {
  return frames.length ? '\n' + arrayJoin(frames, '\n') : '';
}

/** [outcome, type, message, traceback, line, column] for C; outcome 1 raised, 3 unsupported, 4 out of memory. */
function describe(error, code, file) {
  if (!isError(error)) {
    const text = textOf(error);
    return [1, 'Uncaught', text, `Uncaught ${inspect(error)}`, 0, 0];
  }
  const frames = framesOf(error);
  let name = peek(error, 'name');
  name = typeof name === 'string' && name ? name : 'Error';
  let message = peek(error, 'message');
  message = typeof message === 'string' ? message : message === undefined ? '' : textOf(message);
  let [line, column] = placeOf(frames, file);
  const absent = regExpExec(NO_MODULE, message);
  if (absent) {
    const imported = lineOfImport(code, absent[1]);
    if (imported && imported !== line) [line, column] = [imported, 0];
  }
  if (name === 'InternalError' && message === 'out of memory') {
    return [4, 'OutOfMemory', 'the snippet needs more memory than it may have', '', line, column];
  }
  const header = message ? `${name}: ${message}` : name;
  const traceback = excerpt(file, code, line, column) + header + framesText(frames) + describeCauses(error, []);
  const known = weakMapGet(needs, error);
  if (known) return [3, name, known, traceback, line, column];
  const need = needOf(name, message, code, line);
  if (need) return [3, name, `needs ${need}, which this runtime does not have`, traceback, line, column];
  return [1, name, message, traceback, line, column];
}

// Bodies of requests and responses: bytes that are here or a stream of them, Blob, File and FormData.
// Source: https://fetch.spec.whatwg.org/#bodies, https://w3c.github.io/FileAPI/, https://xhr.spec.whatwg.org/#interface-formdata

const { asyncIterator } = Symbol;
const { parse: jsonParse } = JSON;
const promiseThen = uncurry(Promise.prototype.then);
const typedSet = uncurry(TypedArray.prototype.set);
const typedSubarray = uncurry(TypedArray.prototype.subarray);
const nothing = () => {};
const { crypto: globalCrypto } = globalThis;

function illegalConstructor() {
  return codedError(TypeError, 'ERR_ILLEGAL_CONSTRUCTOR', 'Illegal constructor');
}

// ---- streams: as much of ReadableStream as reading needs ----

let stateOf; // of a stream: its pull and cancel, and how far it is

class ReadableStream {
  #state;
  static { stateOf = stream => stream.#state; }
  constructor(key, source) {
    if (key !== INTERNAL) throw illegalConstructor();
    const { pull, cancel } = source;
    this.#state = { pull, cancel, last: undefined, status: 'readable', error: undefined, locked: false, disturbed: false };
  }
  get locked() { return this.#state.locked; }
  getReader() { return new ReadableStreamDefaultReader(INTERNAL, lock(this.#state)); }
  async cancel(reason) {
    if (this.#state.locked) throw new TypeError('Invalid state: ReadableStream is locked');
    cancelStream(this.#state, reason);
  }
  tee() { return teeStream(lock(this.#state)); }
  values() {
    const state = lock(this.#state);
    return {
      next: () => readFrom(state),
      async return(value) {
        cancelStream(state);
        return { done: true, value };
      },
      [asyncIterator]() { return this; },
    };
  }
  [asyncIterator]() { return this.values(); }
}

class ReadableStreamDefaultReader {
  #state;
  constructor(key, state) {
    if (key !== INTERNAL) throw illegalConstructor();
    this.#state = state;
  }
  async read() {
    if (!this.#state) throw codedError(TypeError, 'ERR_INVALID_STATE', 'Invalid state: The reader is not attached to a stream');
    return await readFrom(this.#state);
  }
  async cancel(reason) {
    if (this.#state) cancelStream(this.#state, reason);
  }
  releaseLock() {
    if (this.#state) this.#state.locked = false;
    this.#state = null;
  }
}

function lock(state) {
  if (state.locked) throw codedError(TypeError, 'ERR_INVALID_STATE', 'Invalid state: ReadableStream is locked');
  state.locked = true;
  return state;
}

function cancelStream(state, reason) {
  state.disturbed = true;
  if (state.status !== 'readable') return;
  state.status = 'closed';
  state.cancel(reason);
}

/** The next chunk, `{ done, value }`. Reads that overlap are answered one after the other. */
function readFrom(state) {
  state.disturbed = true;
  const next = state.last ? promiseThen(state.last, () => pullFrom(state)) : pullFrom(state);
  state.last = promiseThen(next, nothing, nothing);
  return next;
}

async function pullFrom(state) {
  if (state.status === 'errored') throw state.error;
  if (state.status === 'closed') return { done: true, value: undefined };
  let chunk;
  try {
    chunk = await state.pull();
  } catch (error) {
    state.status = 'errored';
    state.error = error;
    throw error;
  }
  if (chunk !== null) return { done: false, value: chunk };
  state.status = 'closed';
  return { done: true, value: undefined };
}

function teeStream(state) {
  const queues = [[], []];
  const live = [true, true];
  const branch = i => new ReadableStream(INTERNAL, {
    async pull() {
      if (!queues[i].length) {
        const { done, value } = await readFrom(state);
        if (!done) for (let j = 0; j < 2; j++) if (live[j]) push(queues[j], value);
      }
      return queues[i].length ? arrayShift(queues[i]) : null;
    },
    cancel(reason) {
      live[i] = false;
      if (!live[1 - i]) cancelStream(state, reason);
    },
  });
  return [branch(0), branch(1)];
}

function streamOf(bytes) {
  let rest = bytes.length ? bytes : null;
  return new ReadableStream(INTERNAL, {
    pull() {
      const chunk = rest;
      rest = null;
      return chunk;
    },
    cancel: nothing,
  });
}

function joined(chunks) {
  if (chunks.length === 1) return chunks[0];
  let length = 0;
  for (let i = 0; i < chunks.length; i++) length += typedLength(chunks[i]);
  const whole = new Uint8Array(length);
  for (let i = 0, at = 0; i < chunks.length; at += typedLength(chunks[i++])) typedSet(whole, chunks[i], at);
  return whole;
}

// ---- bodies: { bytes, stream, type, used }, one of bytes and stream is null ----

const utf8Bytes = text => new Uint8Array(host.encode(text));
const copied = ([buffer, offset, length]) => new Uint8Array(bufferSlice(buffer, offset, offset + length));

/** What `new Response(value)` and the like make of a value; null for no body. */
function bodyOf(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof ReadableStream) {
    const { locked, disturbed } = stateOf(value);
    if (locked || disturbed) throw new TypeError('Response body object should not be disturbed or locked');
    return { bytes: null, stream: value, type: '', used: false };
  }
  const [bytes, type] = bytesAndType(value);
  return { bytes, stream: null, type, used: false };
}

function bytesAndType(value) {
  if (value instanceof URLSearchParams) return [utf8Bytes(`${value}`), 'application/x-www-form-urlencoded;charset=UTF-8'];
  if (value instanceof Blob) return [blobBytes(value), value.type];
  if (value instanceof FormData) return multipart(value);
  if (typeof value === 'object' && isBufferSource(value)) return [copied(bytesOf(value)), ''];
  return [utf8Bytes(`${value}`), 'text/plain;charset=UTF-8'];
}

function isBufferSource(value) {
  const kind = brand(value);
  return kind === 'ArrayBuffer' || kind === 'DataView' || typedName(value) !== undefined;
}

function isUsed(body) {
  return body !== null && (body.used || (body.stream !== null && stateOf(body.stream).disturbed));
}

function requireUnused(body) {
  if (isUsed(body)) throw new TypeError('Body is unusable: Body has already been read');
  if (body !== null && body.stream !== null && stateOf(body.stream).locked) throw new TypeError('Body is unusable: it is locked');
}

/** All bytes of a body, which is used up by this. */
async function consume(body) {
  requireUnused(body);
  if (body === null) return new Uint8Array(0);
  body.used = true;
  if (body.stream === null) return body.bytes;
  const state = lock(stateOf(body.stream));
  const chunks = [];
  for (;;) {
    const { done, value } = await readFrom(state);
    if (done) return joined(chunks);
    push(chunks, value);
  }
}

function bodyStream(body) {
  if (body === null) return null;
  if (body.stream === null) {
    body.stream = streamOf(body.bytes);
    if (body.used) cancelStream(stateOf(body.stream));
    body.bytes = null;
  }
  return body.stream;
}

function cloneBody(body) {
  requireUnused(body);
  if (body === null) return null;
  if (body.stream === null) return { ...body };
  const [mine, other] = body.stream.tee();
  body.stream = mine;
  return { ...body, stream: other };
}

const decodeText = bytes => new TextDecoder().decode(bytes);

/** The reading methods that Request and Response share; `bodyIn` gives the body of one of them. */
function addReaders(Class, bodyIn) {
  const readers = {
    async text() { return decodeText(await consume(bodyIn(this))); },
    async json() { return jsonParse(decodeText(await consume(bodyIn(this)))); },
    async bytes() { return copied(bytesOf(await consume(bodyIn(this)))); },
    async arrayBuffer() { return typedBuffer(copied(bytesOf(await consume(bodyIn(this))))); },
    async blob() {
      return new Blob([await consume(bodyIn(this))], { type: this.headers.get('content-type') || '' });
    },
  };
  for (const name of objectKeys(readers)) define(Class.prototype, name, readers[name]);
  const getters = { body() { return bodyStream(bodyIn(this)); }, bodyUsed() { return isUsed(bodyIn(this)); } };
  for (const name of objectKeys(getters)) defineProperty(Class.prototype, name, { get: getters[name], configurable: true });
}

// ---- Blob, File, FormData ----

let blobBytes;

class Blob {
  #bytes;
  #type;
  static { blobBytes = blob => blob.#bytes; }
  constructor(parts = [], options = {}) {
    if (parts === null || typeof parts !== 'object') throw invalidArgument('sources', 'a sequence', parts);
    const chunks = [];
    for (const part of parts) push(chunks, bytesAndType(part)[0]);
    this.#bytes = chunks.length ? copied(bytesOf(joined(chunks))) : new Uint8Array(0);
    const type = options && options.type !== undefined ? `${options.type}` : '';
    this.#type = regExpTest(/[^\x20-\x7e]/, type) ? '' : stringLower(type);
  }
  get size() { return this.#bytes.length; }
  get type() { return this.#type; }
  slice(start, end, type = '') {
    const buffer = bufferSlice(typedBuffer(this.#bytes), start === undefined ? 0 : start, end === undefined ? this.size : end);
    return new Blob([buffer], { type });
  }
  stream() { return streamOf(this.#bytes); }
  async text() { return decodeText(this.#bytes); }
  async bytes() { return copied(bytesOf(this.#bytes)); }
  async arrayBuffer() { return typedBuffer(copied(bytesOf(this.#bytes))); }
}

class File extends Blob {
  #name;
  #lastModified;
  constructor(parts, name, options = {}) {
    super(parts, options);
    this.#name = `${name}`;
    this.#lastModified = options && options.lastModified !== undefined ? +options.lastModified : mathFloor(host.wall());
  }
  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }
}

class FormData {
  #entries = [];
  append(name, value, filename) { push(this.#entries, entryOf(name, value, filename)); }
  set(name, value, filename) {
    const entry = entryOf(name, value, filename);
    const kept = [];
    let at = -1;
    for (let i = 0; i < this.#entries.length; i++) {
      const other = this.#entries[i];
      if (other[0] === entry[0] && at < 0) at = kept.length;
      if (other[0] !== entry[0] || at === kept.length) push(kept, other);
    }
    defineIndex(kept, at < 0 ? kept.length : at, entry);
    this.#entries = kept;
  }
  delete(name) {
    const kept = [];
    for (let i = 0; i < this.#entries.length; i++) if (this.#entries[i][0] !== `${name}`) push(kept, this.#entries[i]);
    this.#entries = kept;
  }
  getAll(name) {
    const values = [];
    for (let i = 0; i < this.#entries.length; i++) if (this.#entries[i][0] === `${name}`) push(values, this.#entries[i][1]);
    return values;
  }
  get(name) {
    const values = this.getAll(name);
    return values.length ? values[0] : null;
  }
  has(name) { return this.getAll(name).length > 0; }
  forEach(callback, self) { for (const [name, value] of this.#entries) apply(callback, self, [value, name, this]); }
  *entries() { for (let i = 0; i < this.#entries.length; i++) yield arraySlice(this.#entries[i]); }
  *keys() { for (const entry of this.entries()) yield entry[0]; }
  *values() { for (const entry of this.entries()) yield entry[1]; }
  [symbolIterator]() { return this.entries(); }
}

function entryOf(name, value, filename) {
  if (!(value instanceof Blob)) return [stringWellFormed(`${name}`), stringWellFormed(`${value}`)];
  const given = filename !== undefined ? `${filename}` : value instanceof File ? value.name : 'blob';
  return [stringWellFormed(`${name}`), new File([value], given, { type: value.type })];
}

/** [bytes, type] of a form with files. Source: https://html.spec.whatwg.org/#multipart-form-data */
function multipart(form) {
  const boundary = `----formdata-${globalCrypto.randomUUID()}`;
  const chunks = [];
  for (const [name, value] of form.entries()) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${quotedName(lineBreaks(name))}"`;
    if (value instanceof File) head += `; filename="${quotedName(value.name)}"\r\nContent-Type: ${value.type || 'application/octet-stream'}`;
    push(chunks, utf8Bytes(`${head}\r\n\r\n`));
    push(chunks, value instanceof File ? blobBytes(value) : utf8Bytes(lineBreaks(value)));
    push(chunks, utf8Bytes('\r\n'));
  }
  push(chunks, utf8Bytes(`--${boundary}--\r\n`));
  return [joined(chunks), `multipart/form-data; boundary=${boundary}`];
}

const lineBreaks = text => regExpReplace(/\r\n|\r|\n/g, text, '\r\n');

function quotedName(text) {
  return regExpReplace(/[\r\n"]/g, text, found => (found === '"' ? '%22' : found === '\r' ? '%0D' : '%0A'));
}

for (const Class of [ReadableStream, ReadableStreamDefaultReader, Blob, File, FormData]) tagged(Class);
expose({ Blob, File, FormData });

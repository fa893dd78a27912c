// fetch, Headers, Request, Response. The host sends the request, as far as the evaluation's policy allows it.
// Source: https://fetch.spec.whatwg.org/

const READ_BYTES = 1 << 18;
const METHODS = /^(delete|get|head|options|post|put)$/i;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const NULL_BODY_STATUS = [101, 204, 205, 304];
const REDIRECTS = [301, 302, 303, 307, 308];
const UTF8_JSON = 'application/json';

function includes(list, value) {
  for (let i = 0; i < list.length; i++) if (list[i] === value) return true;
  return false;
}

// ---- Headers ----

function headerName(name, method) {
  name = `${name}`;
  if (!regExpTest(TOKEN, name)) throw new TypeError(`Headers.${method}: ${name} is an invalid header name.`);
  return stringLower(name);
}

function headerValue(value, method) {
  value = regExpReplace(/^[\t\n\r ]+|[\t\n\r ]+$/g, `${value}`, '');
  if (regExpTest(/[\0\r\n]|[^\0-\xff]/, value)) throw new TypeError(`Headers.${method}: ${value} is an invalid header value.`);
  return value;
}

class Headers {
  #values = new Map(); // name in lower case -> its values
  constructor(init = undefined) {
    if (init === undefined || init === null) return;
    if (typeof init !== 'object') {
      throw new TypeError("Headers constructor: init given is not one of sequence<sequence<ByteString>> or record<ByteString, ByteString>.");
    }
    if (typeof init[symbolIterator] !== 'function') {
      const names = objectKeys(init);
      for (let i = 0; i < names.length; i++) this.append(names[i], init[names[i]]);
      return;
    }
    for (const pair of init) {
      const [name, value, ...more] = pair;
      if (value === undefined || more.length) throw new TypeError('Headers constructor: expected name/value pair to be length 2');
      this.append(name, value);
    }
  }
  append(name, value) {
    name = headerName(name, 'append');
    value = headerValue(value, 'append');
    const values = mapGet(this.#values, name);
    if (values) push(values, value);
    else mapSet(this.#values, name, [value]);
  }
  set(name, value) { mapSet(this.#values, headerName(name, 'set'), [headerValue(value, 'set')]); }
  delete(name) { mapDelete(this.#values, headerName(name, 'delete')); }
  has(name) { return mapHas(this.#values, headerName(name, 'has')); }
  get(name) {
    const values = mapGet(this.#values, headerName(name, 'get'));
    return values ? arrayJoin(values, ', ') : null;
  }
  getSetCookie() { return arraySlice(mapGet(this.#values, 'set-cookie') || []); }
  forEach(callback, self) { for (const [name, value] of this.entries()) apply(callback, self, [value, name, this]); }
  *entries() {
    const pairs = [];
    mapForEach(this.#values, (values, name) => {
      if (name !== 'set-cookie') push(pairs, [name, arrayJoin(values, ', ')]);
      else for (let i = 0; i < values.length; i++) push(pairs, [name, values[i]]);
    });
    arraySort(pairs, (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    for (let i = 0; i < pairs.length; i++) yield pairs[i];
  }
  *keys() { for (const pair of this.entries()) yield pair[0]; }
  *values() { for (const pair of this.entries()) yield pair[1]; }
  [symbolIterator]() { return this.entries(); }
  [CUSTOM_INSPECT](depth, options) {
    const shown = {};
    mapForEach(this.#values, (values, name) => defineIndex(shown, name, arrayJoin(values, ', ')));
    return `Headers ${inspect(shown, options)}`;
  }
}

// ---- Request ----

let bodyOfRequest;

class Request {
  #url;
  #method = 'GET';
  #headers;
  #body = null;
  #redirect = 'follow';
  #signal;
  static { bodyOfRequest = request => request.#body; }
  constructor(input, init = {}) {
    if (init === null || init === undefined) init = {};
    const other = input instanceof Request ? input : null;
    this.#url = other ? other.url : requestUrl(input);
    if (other) {
      this.#method = other.method;
      this.#redirect = other.redirect;
    }
    if (init.method !== undefined) this.#method = requestMethod(init.method);
    if (init.redirect !== undefined) this.#redirect = requestRedirect(init.redirect);
    this.#headers = new Headers(init.headers !== undefined ? init.headers : other ? other.headers : undefined);
    this.#signal = signalOf(init.signal !== undefined ? init.signal : other ? other.signal : null);
    const given = init.body !== undefined && init.body !== null;
    if ((given || (other && bodyOfRequest(other))) && (this.#method === 'GET' || this.#method === 'HEAD')) {
      throw new TypeError('Request with GET/HEAD method cannot have body.');
    }
    this.#body = given ? bodyOf(init.body) : other ? takeBody(bodyOfRequest(other)) : null;
    if (given && this.#body.type && !this.#headers.has('content-type')) this.#headers.set('content-type', this.#body.type);
  }
  get url() { return this.#url; }
  get method() { return this.#method; }
  get headers() { return this.#headers; }
  get redirect() { return this.#redirect; }
  get signal() { return this.#signal; }
  clone() {
    const copy = new Request(this.#url, { method: this.#method, headers: this.#headers, redirect: this.#redirect, signal: this.#signal });
    copy.#body = cloneBody(this.#body);
    return copy;
  }
  [CUSTOM_INSPECT](depth, options) {
    const { method, url, headers, redirect, bodyUsed } = this;
    return `Request ${inspect({ method, url, headers, redirect, bodyUsed }, options)}`;
  }
}

function requestUrl(input) {
  let url;
  try {
    url = new URL(`${input}`);
  } catch (cause) {
    throw new TypeError(`Failed to parse URL from ${input}`, { cause });
  }
  if (url.username || url.password) throw new TypeError(`Request cannot be constructed from a URL that includes credentials: ${input}`);
  return url.href;
}

function requestMethod(method) {
  method = `${method}`;
  if (!regExpTest(TOKEN, method)) throw new TypeError(`'${method}' is not a valid HTTP method.`);
  if (regExpTest(/^(connect|trace|track)$/i, method)) throw new TypeError(`'${method}' HTTP method is unsupported.`);
  return regExpTest(METHODS, method) ? stringUpper(method) : method;
}

function requestRedirect(redirect) {
  redirect = `${redirect}`;
  if (includes(['follow', 'manual', 'error'], redirect)) return redirect;
  throw new TypeError(`Request constructor: ${redirect} is not an accepted type. Expected one of follow, manual, error.`);
}

function signalOf(signal) {
  if (signal === null || signal instanceof AbortSignal) return signal || new AbortController().signal;
  throw new TypeError('Request constructor: Expected signal to be an instance of AbortSignal.');
}

/** The body of a request that another is made from, which has none any more. */
function takeBody(body) {
  if (body === null) return null;
  requireUnused(body);
  const taken = { ...body };
  body.used = true;
  body.bytes = body.bytes && new Uint8Array(0);
  return taken;
}

// ---- Response ----

let bodyOfResponse;

class Response {
  #body;
  #headers;
  #status;
  #statusText;
  #received = { url: '', redirected: false, type: 'default' };
  static { bodyOfResponse = response => response.#body; }
  constructor(body = null, init = {}) {
    if (init === null || init === undefined) init = {};
    this.#status = init.status === undefined ? 200 : trunc(+init.status);
    if (!(this.#status >= 200 && this.#status <= 599)) {
      throw new RangeError('init["status"] must be in the range of 200 to 599, inclusive.');
    }
    this.#statusText = init.statusText === undefined ? '' : `${init.statusText}`;
    this.#headers = new Headers(init.headers);
    this.#body = bodyOf(body);
    if (this.#body && includes(NULL_BODY_STATUS, this.#status)) {
      throw new TypeError(`Response constructor: Invalid response status code ${this.#status}`);
    }
    if (this.#body && this.#body.type && !this.#headers.has('content-type')) this.#headers.set('content-type', this.#body.type);
  }
  get status() { return this.#status; }
  get statusText() { return this.#statusText; }
  get ok() { return this.#status >= 200 && this.#status <= 299; }
  get headers() { return this.#headers; }
  get url() { return this.#received.url; }
  get redirected() { return this.#received.redirected; }
  get type() { return this.#received.type; }
  clone() {
    const copy = new Response(null, { statusText: this.#statusText, headers: this.#headers });
    copy.#status = this.#status;
    copy.#received = this.#received;
    copy.#body = cloneBody(this.#body);
    return copy;
  }
  static json(data, init = {}) {
    const headers = new Headers(init.headers);
    if (!headers.has('content-type')) headers.set('content-type', UTF8_JSON);
    const text = jsonStringify(data);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    return new Response(utf8Bytes(text), { status: init.status, statusText: init.statusText, headers });
  }
  static redirect(url, status = 302) {
    if (!includes(REDIRECTS, status)) throw new RangeError(`Invalid status code ${status}`);
    return new Response(null, { status, headers: { location: new URL(`${url}`).href } });
  }
  static error() {
    const response = new Response();
    response.#status = 0;
    response.#received = { url: '', redirected: false, type: 'error' };
    return response;
  }
  /** Of what the host has received; `body` is a stream or null. */
  static [INTERNAL](head, body) {
    const response = new Response(null, { statusText: head.reason, headers: head.headers });
    response.#status = head.status;
    response.#body = body && { bytes: null, stream: body, type: '', used: false };
    response.#received = { url: head.url, redirected: head.redirected, type: 'basic' };
    return response;
  }
  [CUSTOM_INSPECT](depth, options) {
    const { status, statusText, headers, bodyUsed, ok, redirected, type, url } = this;
    return `Response ${inspect({ status, statusText, headers, bodyUsed, ok, redirected, type, url }, options)}`;
  }
}

const { [INTERNAL]: receivedResponse } = Response;
delete Response[INTERNAL];
addReaders(Request, request => bodyOfRequest(request));
addReaders(Response, response => bodyOfResponse(response));

// ---- fetch ----

function fetchFailed(reason, site, cause) {
  return placedAt(new TypeError(`fetch failed: ${reason}`, { cause: cause || new Error(reason) }), site);
}

function notAllowed(site) {
  const need = 'network access: HTTP is not allowed for this evaluation';
  const error = placedAt(new TypeError('fetch failed: HTTP is not allowed for this evaluation'), site);
  weakMapSet(needs, error, `needs ${need}`);
  return error;
}

/** The error for a request, or a read of its body, that did not end well. */
function httpError(kind, outcome, site) {
  const message = `${outcome.message}`;
  if (kind !== LIMIT && kind !== REFUSED && outcome.type === 'timeout') {
    const error = new DOMException(`fetch failed: ${message}`, 'TimeoutError');
    return placedAt(error, site);
  }
  const cause = new Error(message);
  if (kind === LIMIT) define(cause, 'limit', outcome.limit);
  define(cause, 'code', kind === LIMIT ? 'LIMIT' : kind === REFUSED ? 'REFUSED' : stringUpper(`${outcome.type}`));
  return fetchFailed(message, site, cause);
}

/** Waits for a call of HTTP; `signal` gives it up. `begin` returns its number, 0 when the host takes no such call. */
function httpCall(begin, signal, site) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) throw signal.reason;
    const number = begin();
    if (!number) throw fetchFailed('the host takes no such request; it may be too large', site);
    const abort = () => {
      mapDelete(underWay, number);
      host.drop(number, true);
      reject(signal.reason);
    };
    signal.addEventListener('abort', abort);
    mapSet(underWay, number, (kind, buffer) => {
      signal.removeEventListener('abort', abort);
      try {
        if (kind === DONE) resolve(buffer);
        else reject(httpError(kind, outcomeOf(buffer), site));
      } catch (error) {
        reject(error);
      }
    });
  });
}

/** The body of a response: what came with its head, and then what `stream` of the host gives; 0 for no more. */
function receivedBody(first, stream, signal, site) {
  const end = () => {
    if (stream) host.drop(stream, false);
    stream = 0;
  };
  signal.addEventListener('abort', end);
  return new ReadableStream(INTERNAL, {
    async pull() {
      if (first) {
        const chunk = first;
        first = null;
        return chunk;
      }
      if (signal.aborted) throw signal.reason;
      if (!stream) return null;
      const buffer = await httpCall(() => host.beginRead(stream, READ_BYTES), signal, site);
      if (bufferBytes(buffer)) return new Uint8Array(buffer);
      stream = 0;
      return null;
    },
    cancel: end,
  });
}

function responseOf(buffer, request, site) {
  const view = new Uint8Array(buffer, 0, 4);
  const length = view[0] + view[1] * 0x100 + view[2] * 0x10000 + view[3] * 0x1000000;
  const head = host.parse(buffer, 4, length);
  if (request.redirect === 'error' && includes(REDIRECTS, head.status)) {
    if (head.stream) host.drop(head.stream, false);
    throw fetchFailed('unexpected redirect', site);
  }
  const bodiless = includes(NULL_BODY_STATUS, head.status) || request.method === 'HEAD';
  if (bodiless) return receivedResponse(head, null);
  const first = bufferBytes(buffer) > 4 + length ? new Uint8Array(bufferSlice(buffer, 4 + length)) : null;
  return receivedResponse(head, receivedBody(first, head.stream, request.signal, site));
}

async function fetch(input, init) {
  const site = new Error();
  if (arguments.length === 0) throw new TypeError("fetch: 1 argument required, but 0 found.");
  const request = new Request(input, init);
  if (request.signal.aborted) throw request.signal.reason;
  if (!grants.http) throw notAllowed(site);
  if (!regExpTest(/^https?:/, request.url)) throw fetchFailed(`unknown scheme of ${request.url}`, site);
  const { headers, signal } = request;
  if (!headers.has('accept')) headers.set('accept', '*/*');
  const head = host.json({
    method: request.method,
    url: request.url,
    headers: [...headers.entries()],
    redirect: request.redirect === 'follow' ? 'follow' : 'manual',
    seconds: null,
  });
  const body = bytesOf(await consume(bodyOfRequest(request)));
  const buffer = await httpCall(() => host.beginHttp(head, body[0], body[1], body[2]), signal, site);
  return responseOf(buffer, request, site);
}

for (const Class of [Headers, Request, Response]) tagged(Class);
expose({ Headers, Request, Response, fetch });

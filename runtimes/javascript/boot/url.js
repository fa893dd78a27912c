// URL and URLSearchParams. Source: https://url.spec.whatwg.org/
// Hosts with non-ASCII letters are lower-cased, normalised (NFC) and written in Punycode; the full mapping table of
// UTS #46 is not here.

const SPECIAL_PORTS = { __proto__: null, 'http:': 80, 'https:': 443, 'ws:': 80, 'wss:': 443, 'ftp:': 21, 'file:': null };

// The printable characters of each percent-encode set; controls and what is beyond ASCII are in all of them.
const FRAGMENT_SET = ' "<>`';
const QUERY_SET = ' "#<>';
const SPECIAL_QUERY_SET = ' "#<>\'';
const PATH_SET = ' "#<>?`{}';
const USERINFO_SET = ' "#<>?`{}/:;=@[\\]^|';
const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
const FORBIDDEN_DOMAIN = /[\0-\x20#/:<>?@[\\\]^|%\x7f]/;

const utf8 = point => new Uint8Array(host.encode(fromCodePoint(point)));

function percent(byte) {
  return '%' + stringUpper(HEX[byte]);
}

function percentEncode(text, set) {
  let out = '';
  for (let i = 0; i < text.length; ) {
    const point = codePointAt(text, i);
    i += point > 0xffff ? 2 : 1;
    if (point > 0x20 - 1 && point < 0x7f && !stringIncludes(set, fromCharCode(point))) {
      out += fromCharCode(point);
      continue;
    }
    const bytes = utf8(point);
    for (let j = 0; j < bytes.length; j++) out += percent(bytes[j]);
  }
  return out;
}

function hexDigit(text, i) {
  const unit = i < text.length ? charCodeAt(text, i) : 0;
  if (unit >= 48 && unit <= 57) return unit - 48;
  const lower = unit | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/** The text that the percent-encoded bytes stand for, as UTF-8 without a byte order mark's removal. */
function percentDecode(text) {
  if (!stringIncludes(text, '%')) return text;
  const bytes = new Uint8Array(host.encode(text));
  let count = 0;
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] === 37 && i + 2 < bytes.length) {
      const digits = fromCharCode(bytes[i + 1], bytes[i + 2]);
      const high = hexDigit(digits, 0);
      const low = hexDigit(digits, 1);
      if (high >= 0 && low >= 0) {
        bytes[count++] = high * 16 + low;
        i += 2;
        continue;
      }
    }
    bytes[count++] = bytes[i];
  }
  return host.decode(typedBuffer(bytes), 0, count, false, false)[0];
}

// ---- hosts

function invalid() {
  return null;
}

/** A host as text, or null when it is not valid. */
function parseHost(text, special) {
  if (stringStartsWith(text, '[')) {
    if (!stringEndsWith(text, ']')) return invalid();
    const address = parseIPv6(stringSlice(text, 1, -1));
    return address && `[${address}]`;
  }
  if (!special) return regExpTest(FORBIDDEN_HOST, text) ? invalid() : percentEncode(text, '');
  const ascii = domainToASCII(percentDecode(text));
  if (ascii === null || ascii === '' || regExpTest(FORBIDDEN_DOMAIN, ascii)) return invalid();
  return endsInNumber(ascii) ? parseIPv4(ascii) : ascii;
}

function domainToASCII(domain) {
  if (regExpTest(/^[\x00-\x7f]*$/, domain) && !regExpTest(/(^|\.)xn--/i, domain)) return stringLower(domain);
  const mapped = regExpReplace(/[\u3002\uff0e\uff61]/g, stringNormalize(stringLower(stringNormalize(domain, 'NFKC')), 'NFC'), '.');
  const labels = stringSplit(regExpReplace(/[\u00ad\u200b-\u200d\ufeff]/g, mapped, ''), '.');
  const out = [];
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i];
    if (regExpTest(/^[\x00-\x7f]*$/, label)) push(out, label);
    else {
      const encoded = punycode(label);
      if (encoded === null) return null;
      push(out, 'xn--' + encoded);
    }
  }
  return arrayJoin(out, '.');
}

/** Source: RFC 3492, section 6.3 */
function punycode(label) {
  const points = [];
  for (const letter of stringSplitPoints(label)) push(points, letter);
  let out = '';
  for (let i = 0; i < points.length; i++) if (points[i] < 0x80) out += fromCharCode(points[i]);
  const basic = out.length;
  let handled = basic;
  if (basic) out += '-';
  let [n, delta, bias] = [128, 0, 72];
  while (handled < points.length) {
    let least = 0x7fffffff;
    for (let i = 0; i < points.length; i++) if (points[i] >= n && points[i] < least) least = points[i];
    delta += (least - n) * (handled + 1);
    if (delta > 0x7fffffff) return null;
    n = least;
    for (let i = 0; i < points.length; i++) {
      if (points[i] < n) delta++;
      if (points[i] !== n) continue;
      let q = delta;
      for (let k = 36; ; k += 36) {
        const t = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
        if (q < t) break;
        out += punycodeDigit(t + ((q - t) % (36 - t)));
        q = mathFloor((q - t) / (36 - t));
      }
      out += punycodeDigit(q);
      bias = adaptBias(delta, handled + 1, handled === basic);
      delta = 0;
      handled++;
    }
    delta++;
    n++;
  }
  return out;
}

function stringSplitPoints(text) {
  const points = [];
  for (let i = 0; i < text.length; ) {
    const point = codePointAt(text, i);
    push(points, point);
    i += point > 0xffff ? 2 : 1;
  }
  return points;
}

function punycodeDigit(digit) {
  return fromCharCode(digit < 26 ? 97 + digit : 22 + digit);
}

function adaptBias(delta, count, first) {
  delta = mathFloor(first ? delta / 700 : delta / 2);
  delta += mathFloor(delta / count);
  let k = 0;
  for (; delta > 455; k += 36) delta = mathFloor(delta / 35);
  return k + mathFloor((36 * delta) / (delta + 38));
}

function endsInNumber(domain) {
  const parts = stringSplit(domain, '.');
  if (parts[parts.length - 1] === '') {
    if (parts.length === 1) return false;
    parts.length--;
  }
  const last = parts[parts.length - 1];
  return regExpTest(/^[0-9]+$/, last) || regExpTest(/^0x[0-9a-f]*$/i, last);
}

function parseIPv4(domain) {
  const parts = stringSplit(domain, '.');
  if (parts[parts.length - 1] === '' && parts.length > 1) parts.length--;
  if (parts.length > 4) return invalid();
  let address = 0;
  for (let i = 0; i < parts.length; i++) {
    const value = parseIPv4Number(parts[i]);
    const last = i === parts.length - 1;
    if (value === null || value > (last ? 256 ** (5 - parts.length) - 1 : 255)) return invalid();
    address += last ? value : value * 256 ** (3 - i);
  }
  const out = [];
  for (let i = 3; i >= 0; i--) push(out, mathFloor(address / 256 ** i) % 256);
  return arrayJoin(out, '.');
}

function parseIPv4Number(text) {
  if (text === '') return null;
  if (regExpTest(/^0x[0-9a-f]*$/i, text)) return text.length === 2 ? 0 : parseInteger(text, 16);
  if (regExpTest(/^0[0-7]+$/, text)) return parseInteger(text, 8);
  return regExpTest(/^(0|[1-9][0-9]*)$/, text) ? parseInteger(text, 10) : null;
}

/** An IPv6 address in its shortest form, or null. */
function parseIPv6(text) {
  const pieces = [];
  let compress = -1;
  let i = 0;
  if (stringStartsWith(text, '::')) {
    compress = 0;
    i = 2;
  } else if (text[0] === ':') return invalid();
  while (i < text.length) {
    if (pieces.length === 8) return invalid();
    if (text[i] === ':') {
      if (compress >= 0) return invalid();
      i++;
      compress = pieces.length;
      continue;
    }
    let value = 0;
    let length = 0;
    for (let digit; length < 4 && (digit = hexDigit(text, i)) >= 0; length++, i++) value = value * 16 + digit;
    if (text[i] === '.') {
      if (length === 0 || pieces.length > 6) return invalid();
      const four = regExpExec(/^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/, stringSlice(text, i - length));
      if (!four || four[1] > 255 || four[2] > 255 || four[3] > 255 || four[4] > 255) return invalid();
      push(pieces, +four[1] * 256 + +four[2]);
      push(pieces, +four[3] * 256 + +four[4]);
      break;
    }
    if (text[i] === ':') {
      i++;
      if (i === text.length) return invalid();
    } else if (i < text.length) return invalid();
    push(pieces, value);
  }
  if (compress >= 0) {
    if (pieces.length === 8) return invalid();
    while (pieces.length < 8) arraySplice(pieces, compress, 0, 0);
  } else if (pieces.length !== 8) return invalid();
  return writeIPv6(pieces);
}

function writeIPv6(pieces) {
  let start = -1;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && pieces[i + run] === 0) run++;
    if (run > longest) [start, longest] = [i, run];
    i += run;
  }
  let out = '';
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      out += i === 0 ? '::' : ':';
      i += longest - 1;
      continue;
    }
    out += numberToString(pieces[i], 16) + (i < 7 ? ':' : '');
  }
  return out;
}

// ---- the parser

/** A URL record: scheme with its colon; path a list of segments, or a string where it is opaque. */
function record() {
  return { __proto__: null, scheme: '', username: '', password: '', host: null, port: null, path: [], query: null, fragment: null };
}

function isSpecial(url) {
  return url.scheme in SPECIAL_PORTS;
}

function isOpaque(url) {
  return typeof url.path === 'string';
}

function copyRecord(base) {
  const url = { __proto__: null, ...base };
  if (!isOpaque(base)) url.path = arraySlice(base.path);
  return url;
}

/** Parses a URL; null when it is not valid. */
function parseURL(input, base) {
  let text = regExpReplace(/^[\0-\x20]+|[\0-\x20]+$/g, stringWellFormed(input), '');
  text = regExpReplace(/[\t\n\r]/g, text, '');
  const url = record();
  let fragment = null;
  const hash = stringIndexOf(text, '#');
  if (hash >= 0) {
    fragment = percentEncode(stringSlice(text, hash + 1), FRAGMENT_SET);
    text = stringSlice(text, 0, hash);
  }
  const scheme = regExpExec(/^[a-zA-Z][a-zA-Z0-9+.-]*:/, text);
  const result = scheme
    ? parseWithScheme(url, stringLower(scheme[0]), stringSlice(text, scheme[0].length), base)
    : base ? parseRelative(url, text, base, fragment) : invalid();
  if (result) result.fragment = fragment;
  return result;
}

function parseWithScheme(url, scheme, rest, base) {
  url.scheme = scheme;
  if (scheme === 'file:') return parseFile(url, rest, base && base.scheme === 'file:' ? base : null);
  if (isSpecial(url)) {
    if (base && base.scheme === scheme && !regExpTest(/^[/\\]/, rest)) return parseRelative(url, rest, base);
    if (base && base.scheme === scheme && !regExpTest(/^[/\\]{2}/, rest)) return parseRelative(url, rest, base);
    return parseAuthority(url, regExpReplace(/^[/\\]*/, rest, ''));
  }
  if (stringStartsWith(rest, '//')) return parseAuthority(url, stringSlice(rest, 2));
  if (stringStartsWith(rest, '/')) return parsePathAndQuery(url, rest);
  const mark = stringIndexOf(rest, '?');
  url.path = percentEncode(mark < 0 ? rest : stringSlice(rest, 0, mark), '');
  if (mark >= 0) url.query = percentEncode(stringSlice(rest, mark + 1), QUERY_SET);
  return url;
}

function parseRelative(url, rest, base, fragment) {
  if (isOpaque(base)) {
    if (rest !== '' || fragment === null || fragment === undefined) return invalid();
    return copyRecord(base);
  }
  url.scheme = base.scheme;
  if (base.scheme === 'file:') return parseFile(url, rest, base);
  const special = isSpecial(url);
  const slash = special ? /^[/\\]/ : /^\//;
  if (regExpTest(slash, rest)) {
    if (regExpTest(slash, stringSlice(rest, 1))) {
      return parseAuthority(url, special ? regExpReplace(/^[/\\]*/, rest, '') : stringSlice(rest, 2));
    }
    takeAuthority(url, base);
    return parsePathAndQuery(url, rest);
  }
  takeAuthority(url, base);
  return parseBeside(url, rest, base);
}

function takeAuthority(url, base) {
  url.username = base.username;
  url.password = base.password;
  url.host = base.host;
  url.port = base.port;
}

/** The rest is a path relative to the base's folder, or only a query, or nothing. */
function parseBeside(url, rest, base) {
  url.path = arraySlice(base.path);
  if (rest === '') {
    url.query = base.query;
    return url;
  }
  if (rest[0] !== '?') shorten(url);
  return parsePathAndQuery(url, rest);
}

function parseAuthority(url, rest) {
  const special = isSpecial(url);
  const end = regExpExec(special ? /[/\\?]/ : /[/?]/, rest);
  let authority = end ? stringSlice(rest, 0, end.index) : rest;
  const at = stringLastIndexOf(authority, '@');
  if (at >= 0) {
    const credentials = stringSlice(authority, 0, at);
    const colon = stringIndexOf(credentials, ':');
    url.username = percentEncode(colon < 0 ? credentials : stringSlice(credentials, 0, colon), USERINFO_SET);
    if (colon >= 0) url.password = percentEncode(stringSlice(credentials, colon + 1), USERINFO_SET);
    authority = stringSlice(authority, at + 1);
    if (authority === '') return invalid();
  }
  const port = regExpExec(/:([0-9]*)$/, authority);
  const name = port ? stringSlice(authority, 0, port.index) : authority;
  if (name === '' && (special || port)) return invalid();
  if (!port && !stringStartsWith(name, '[') && stringIncludes(name, ':')) return invalid();
  url.host = name === '' ? '' : parseHost(name, special);
  if (url.host === null) return invalid();
  if (port && port[1] !== '') {
    const number = parseInteger(port[1], 10);
    if (number > 65535) return invalid();
    url.port = number === SPECIAL_PORTS[url.scheme] ? null : number;
  }
  return parsePathAndQuery(url, end ? stringSlice(rest, end.index) : '');
}

const DRIVE = /^[a-zA-Z][:|]$/;
const STARTS_WITH_DRIVE = /^[a-zA-Z][:|](?:[/\\?#]|$)/;

function parseFile(url, rest, base) {
  url.scheme = 'file:';
  url.host = '';
  if (regExpTest(/^[/\\]{2}/, rest)) {
    rest = stringSlice(rest, 2);
    const end = regExpExec(/[/\\?]/, rest);
    const name = end ? stringSlice(rest, 0, end.index) : rest;
    if (regExpTest(DRIVE, name)) return parsePathAndQuery(url, rest);
    if (name !== '') {
      const parsed = parseHost(name, true);
      if (parsed === null) return invalid();
      url.host = parsed === 'localhost' ? '' : parsed;
    }
    return parsePathAndQuery(url, end ? stringSlice(rest, end.index) : '');
  }
  if (regExpTest(/^[/\\]/, rest)) {
    if (base) {
      url.host = base.host;
      if (!regExpTest(STARTS_WITH_DRIVE, stringSlice(rest, 1)) && base.path.length && regExpTest(/^[a-zA-Z]:$/, base.path[0])) {
        push(url.path, base.path[0]);
      }
    }
    return parsePathAndQuery(url, rest);
  }
  if (!base) return parsePathAndQuery(url, rest);
  url.host = base.host;
  if (regExpTest(STARTS_WITH_DRIVE, rest)) return parsePathAndQuery(url, rest);
  return parseBeside(url, rest, base);
}

function shorten(url) {
  const path = url.path;
  if (url.scheme === 'file:' && path.length === 1 && regExpTest(/^[a-zA-Z]:$/, path[0])) return;
  if (path.length) path.length--;
}

const ONE_DOT = /^(\.|%2e)$/i;
const TWO_DOTS = /^(\.|%2e){2}$/i;

/** Adds the segments of `rest` to the path and sets the query. */
function parsePathAndQuery(url, rest) {
  const special = isSpecial(url);
  const mark = stringIndexOf(rest, '?');
  if (mark >= 0) {
    url.query = percentEncode(stringSlice(rest, mark + 1), special ? SPECIAL_QUERY_SET : QUERY_SET);
    rest = stringSlice(rest, 0, mark);
  }
  if (rest === '') {
    if (special && !url.path.length) push(url.path, '');
    return url;
  }
  const segments = stringSplit(regExpReplace(special ? /^[/\\]/ : /^\//, rest, ''), special ? /[/\\]/ : '/');
  for (let i = 0; i < segments.length; i++) {
    const last = i === segments.length - 1;
    let segment = segments[i];
    if (regExpTest(TWO_DOTS, segment)) {
      shorten(url);
      if (last) push(url.path, '');
    } else if (regExpTest(ONE_DOT, segment)) {
      if (last) push(url.path, '');
    } else {
      if (url.scheme === 'file:' && !url.path.length && regExpTest(DRIVE, segment)) segment = segment[0] + ':';
      push(url.path, percentEncode(segment, PATH_SET));
    }
  }
  return url;
}

function writePath(url) {
  if (isOpaque(url)) return url.path;
  return url.path.length ? '/' + arrayJoin(url.path, '/') : '';
}

function writeURL(url) {
  let out = url.scheme;
  if (url.host !== null) {
    out += '//';
    if (url.username || url.password) out += `${url.username}${url.password ? ':' + url.password : ''}@`;
    out += url.host + (url.port === null ? '' : `:${url.port}`);
  } else if (!isOpaque(url) && url.path.length > 1 && url.path[0] === '') out += '/.';
  out += writePath(url);
  if (url.query !== null) out += '?' + url.query;
  if (url.fragment !== null) out += '#' + url.fragment;
  return out;
}

// ---- URLSearchParams

const FORM_SAFE = /^[A-Za-z0-9*\-._]$/;

function formEncode(text) {
  let out = '';
  text = stringWellFormed(text);
  for (let i = 0; i < text.length; ) {
    const point = codePointAt(text, i);
    i += point > 0xffff ? 2 : 1;
    if (point === 32) out += '+';
    else if (point < 128 && regExpTest(FORM_SAFE, fromCharCode(point))) out += fromCharCode(point);
    else {
      const bytes = utf8(point);
      for (let j = 0; j < bytes.length; j++) out += percent(bytes[j]);
    }
  }
  return out;
}

function formDecode(text) {
  return percentDecode(regExpReplace(/\+/g, text, ' '));
}

function parseForm(text) {
  const list = [];
  if (text === '') return list;
  const parts = stringSplit(text, '&');
  for (let i = 0; i < parts.length; i++) {
    if (parts[i] === '') continue;
    const equals = stringIndexOf(parts[i], '=');
    const name = equals < 0 ? parts[i] : stringSlice(parts[i], 0, equals);
    push(list, [formDecode(name), equals < 0 ? '' : formDecode(stringSlice(parts[i], equals + 1))]);
  }
  return list;
}

function writeForm(list) {
  const parts = [];
  for (let i = 0; i < list.length; i++) push(parts, `${formEncode(list[i][0])}=${formEncode(list[i][1])}`);
  return arrayJoin(parts, '&');
}

function invalidTuple() {
  return codedError(TypeError, 'ERR_INVALID_TUPLE', 'Each query pair must be an iterable [name, value] tuple');
}

class URLSearchParams {
  #list = [];
  #update = null;
  constructor(init = '') {
    if (typeof init === 'function' && arguments[1] === INTERNAL) {
      this.#update = init;
      return;
    }
    if (init === null || (typeof init !== 'object' && typeof init !== 'function')) {
      init = stringWellFormed(`${init}`);
      this.#list = parseForm(init[0] === '?' ? stringSlice(init, 1) : init);
    } else if (init[symbolIterator] !== undefined && init[symbolIterator] !== null) {
      for (const pair of init) {
        const tuple = pair === null || typeof pair !== 'object' ? [] : [...pair];
        if (tuple.length !== 2) throw invalidTuple();
        push(this.#list, [stringWellFormed(`${tuple[0]}`), stringWellFormed(`${tuple[1]}`)]);
      }
    } else {
      const keys = ownKeys(init);
      for (let i = 0; i < keys.length; i++) {
        if (isEnumerable(init, keys[i])) push(this.#list, [stringWellFormed(`${keys[i]}`), stringWellFormed(`${init[keys[i]]}`)]);
      }
    }
  }
  [INTERNAL](query) { this.#list = parseForm(query); }
  #changed() {
    if (this.#update) this.#update(writeForm(this.#list));
  }
  get size() { return this.#list.length; }
  append(name, value) {
    push(this.#list, [stringWellFormed(`${name}`), stringWellFormed(`${value}`)]);
    this.#changed();
  }
  delete(name, value) {
    name = `${name}`;
    const kept = [];
    for (let i = 0; i < this.#list.length; i++) {
      const pair = this.#list[i];
      if (pair[0] !== name || (value !== undefined && pair[1] !== `${value}`)) push(kept, pair);
    }
    this.#list = kept;
    this.#changed();
  }
  get(name) {
    name = `${name}`;
    for (let i = 0; i < this.#list.length; i++) if (this.#list[i][0] === name) return this.#list[i][1];
    return null;
  }
  getAll(name) {
    name = `${name}`;
    const values = [];
    for (let i = 0; i < this.#list.length; i++) if (this.#list[i][0] === name) push(values, this.#list[i][1]);
    return values;
  }
  has(name, value) {
    name = `${name}`;
    for (let i = 0; i < this.#list.length; i++) {
      if (this.#list[i][0] === name && (value === undefined || this.#list[i][1] === `${value}`)) return true;
    }
    return false;
  }
  set(name, value) {
    name = stringWellFormed(`${name}`);
    const pair = [name, stringWellFormed(`${value}`)];
    const kept = [];
    let placed = false;
    for (let i = 0; i < this.#list.length; i++) {
      if (this.#list[i][0] !== name) push(kept, this.#list[i]);
      else if (!placed) {
        push(kept, pair);
        placed = true;
      }
    }
    if (!placed) push(kept, pair);
    this.#list = kept;
    this.#changed();
  }
  sort() {
    arraySort(this.#list, (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#changed();
  }
  forEach(callback, self) {
    if (typeof callback !== 'function') throw invalidArgument('callback', 'of type function', callback);
    for (let i = 0; i < this.#list.length; i++) apply(callback, self, [this.#list[i][1], this.#list[i][0], this]);
  }
  *entries() { for (let i = 0; i < this.#list.length; i++) yield [this.#list[i][0], this.#list[i][1]]; }
  *keys() { for (let i = 0; i < this.#list.length; i++) yield this.#list[i][0]; }
  *values() { for (let i = 0; i < this.#list.length; i++) yield this.#list[i][1]; }
  toString() { return writeForm(this.#list); }
  [CUSTOM_INSPECT](depth, options) {
    if (typeof depth === 'number' && depth < 0) return '[Object]';
    const parts = [];
    for (let i = 0; i < this.#list.length; i++) push(parts, `${quote(this.#list[i][0])} => ${quote(this.#list[i][1])}`);
    if (!parts.length) return 'URLSearchParams {}';
    const line = arrayJoin(parts, ', ');
    return line.length > options.breakLength
      ? `URLSearchParams {\n  ${arrayJoin(parts, ',\n  ')} }`
      : `URLSearchParams { ${line} }`;
  }
}
tagged(URLSearchParams);
define(URLSearchParams.prototype, symbolIterator, URLSearchParams.prototype.entries);

// ---- URL

class URL {
  #url;
  #params = null;
  constructor(input, base) {
    if (arguments.length === 0) throw codedError(TypeError, 'ERR_MISSING_ARGS', 'The "url" argument must be specified');
    this.#url = parseWithBase(`${input}`, base);
    if (!this.#url) {
      const error = codedError(TypeError, 'ERR_INVALID_URL', 'Invalid URL');
      error.input = `${input}`;
      if (base !== undefined) error.base = `${base}`;
      throw error;
    }
  }
  static canParse(input, base) { return parseWithBase(`${input}`, base) !== null; }
  static parse(input, base) { return URL.canParse(input, base) ? new URL(input, base) : null; }
  get href() { return writeURL(this.#url); }
  set href(value) {
    const url = parseURL(`${value}`, null);
    if (!url) throw codedError(TypeError, 'ERR_INVALID_URL', 'Invalid URL');
    this.#url = url;
    this.#refresh();
  }
  get origin() {
    const { scheme, host: name, port, path } = this.#url;
    if (scheme === 'blob:') {
      const inner = parseURL(isOpaque(this.#url) ? path : '', null);
      return inner && regExpTest(/^https?:$/, inner.scheme) ? new URL(path).origin : 'null';
    }
    if (!isSpecial(this.#url) || scheme === 'file:') return 'null';
    return `${scheme}//${name}${port === null ? '' : `:${port}`}`;
  }
  get protocol() { return this.#url.scheme; }
  set protocol(value) {
    const found = regExpExec(/^([a-zA-Z][a-zA-Z0-9+.-]*)(:|$)/, `${value}`);
    if (!found) return;
    const scheme = stringLower(found[1]) + ':';
    const url = this.#url;
    if (scheme in SPECIAL_PORTS !== isSpecial(url)) return;
    if (scheme === 'file:' && (url.username || url.password || url.port !== null)) return;
    if (url.scheme === 'file:' && url.host === '') return;
    url.scheme = scheme;
    if (url.port === SPECIAL_PORTS[scheme]) url.port = null;
  }
  get username() { return this.#url.username; }
  set username(value) {
    if (this.#mayHaveCredentials()) this.#url.username = percentEncode(stringWellFormed(`${value}`), USERINFO_SET);
  }
  get password() { return this.#url.password; }
  set password(value) {
    if (this.#mayHaveCredentials()) this.#url.password = percentEncode(stringWellFormed(`${value}`), USERINFO_SET);
  }
  #mayHaveCredentials() { return !!this.#url.host && this.#url.scheme !== 'file:'; }
  get host() {
    const { host: name, port } = this.#url;
    return name === null ? '' : port === null ? name : `${name}:${port}`;
  }
  set host(value) { this.#setHost(`${value}`, true); }
  get hostname() { return this.#url.host === null ? '' : this.#url.host; }
  set hostname(value) { this.#setHost(`${value}`, false); }
  #setHost(value, withPort) {
    if (isOpaque(this.#url)) return;
    const special = isSpecial(this.#url);
    const text = regExpExec(special ? /^[^/\\?#]*/ : /^[^/?#]*/, regExpReplace(/[\t\n\r]/g, value, ''))[0];
    const found = regExpExec(/^(\[[^\]]*\]|[^:]*)(?::(.*))?$/, text);
    if (!found || (found[2] !== undefined && !withPort)) return;
    if (found[1] === '' && (special || this.#url.username || this.#url.password || this.#url.port !== null)) return;
    const name = found[1] === '' ? '' : parseHost(found[1], special);
    if (name === null) return;
    this.#url.host = this.#url.scheme === 'file:' && name === 'localhost' ? '' : name;
    if (found[2]) this.port = found[2];
  }
  get port() { return this.#url.port === null ? '' : `${this.#url.port}`; }
  set port(value) {
    if (!this.#mayHaveCredentials()) return;
    const text = regExpReplace(/[\t\n\r]/g, `${value}`, '');
    if (text === '') {
      this.#url.port = null;
      return;
    }
    const digits = regExpExec(/^[0-9]+/, text);
    if (!digits || +digits[0] > 65535) return;
    this.#url.port = +digits[0] === SPECIAL_PORTS[this.#url.scheme] ? null : +digits[0];
  }
  get pathname() { return writePath(this.#url); }
  set pathname(value) {
    if (isOpaque(this.#url)) return;
    this.#url.path = [];
    const text = regExpReplace(/[\t\n\r]/g, stringWellFormed(`${value}`), '');
    const escaped = regExpReplace(/#/g, regExpReplace(/\?/g, text, '%3F'), '%23');
    const query = this.#url.query;
    parsePathAndQuery(this.#url, escaped);
    this.#url.query = query;
  }
  get search() { return this.#url.query ? '?' + this.#url.query : ''; }
  set search(value) {
    const text = regExpReplace(/[\t\n\r]/g, stringWellFormed(`${value}`), '');
    const query = text[0] === '?' ? stringSlice(text, 1) : text;
    this.#url.query = text === '' ? null : percentEncode(query, isSpecial(this.#url) ? SPECIAL_QUERY_SET : QUERY_SET);
    this.#refresh();
  }
  get searchParams() {
    if (!this.#params) {
      this.#params = new URLSearchParams(query => {
        this.#url.query = query === '' ? null : query;
      }, INTERNAL);
      this.#refresh();
    }
    return this.#params;
  }
  #refresh() {
    if (this.#params) this.#params[INTERNAL](this.#url.query || '');
  }
  get hash() { return this.#url.fragment ? '#' + this.#url.fragment : ''; }
  set hash(value) {
    const text = regExpReplace(/[\t\n\r]/g, stringWellFormed(`${value}`), '');
    this.#url.fragment = text === '' ? null : percentEncode(text[0] === '#' ? stringSlice(text, 1) : text, FRAGMENT_SET);
  }
  toString() { return this.href; }
  toJSON() { return this.href; }
  [CUSTOM_INSPECT](depth, options) {
    if (typeof depth === 'number' && depth < 0) return '[Object]';
    const parts = { };
    for (const name of ['href', 'origin', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname',
      'search', 'searchParams', 'hash']) parts[name] = this[name];
    return `URL ${inspect(parts, options)}`;
  }
}
tagged(URL);

function parseWithBase(input, base) {
  let parsed = null;
  if (base !== undefined) {
    parsed = parseURL(`${base}`, null);
    if (!parsed) return null;
  }
  return parseURL(input, parsed);
}

expose({ URL, URLSearchParams });

// TextEncoder and TextDecoder. Source: https://encoding.spec.whatwg.org/
// Decodes UTF-8, UTF-16 (both orders) and windows-1252 (which `latin1` and `ascii` are labels of).

const LABELS = {
  __proto__: null,
  'utf-8': 'utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8',
  'utf-16le': 'utf-16le utf-16 ucs-2 unicode csunicode iso-10646-ucs-2 unicodefeff',
  'utf-16be': 'utf-16be unicodefffe',
  'windows-1252': 'windows-1252 latin1 l1 ascii us-ascii iso-8859-1 iso8859-1 iso88591 iso_8859-1 cp1252 x-cp1252 cp819 ' +
    'ibm819 ansi_x3.4-1968 csisolatin1 iso-ir-100 iso_8859-1:1987',
};
const ENCODINGS = create(null);
for (const name in LABELS) for (const label of LABELS[name].split(' ')) ENCODINGS[label] = name;

const WINDOWS_1252 = '\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f' +
  '\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178';

function codedError(ErrorClass, code, message) {
  const error = new ErrorClass(message);
  define(error, 'code', code);
  return error;
}

/** [buffer, offset, length] of what a BufferSource covers. */
function bytesOf(source) {
  const kind = brand(source);
  if (kind === 'ArrayBuffer' || kind === 'SharedArrayBuffer') return [source, 0, bufferBytes(source)];
  if (kind === 'DataView') return [viewBuffer(source), viewOffset(source), viewBytes(source)];
  if (source !== null && typeof source === 'object' && typedName(source) !== undefined) {
    return [typedBuffer(source), typedOffset(source), typedBytes(source)];
  }
  throw invalidArgument('list', 'an instance of SharedArrayBuffer, ArrayBuffer or ArrayBufferView', source);
}

class TextEncoder {
  get encoding() { return 'utf-8'; }
  encode(input = '') { return new Uint8Array(host.encode(`${input}`)); }
  encodeInto(source, destination) {
    if (typedName(destination) !== 'Uint8Array') throw invalidArgument('dest', 'an instance of Uint8Array', destination);
    source = `${source}`;
    let read = 0;
    let written = 0;
    while (read < source.length) {
      const point = codePointAt(source, read);
      const width = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      if (written + width > destination.length) break;
      const bytes = new Uint8Array(host.encode(fromCodePoint(point)));
      for (let i = 0; i < width; i++) destination[written + i] = bytes[i];
      written += width;
      read += width === 4 ? 2 : 1;
    }
    return { read, written };
  }
}

class TextDecoder {
  #encoding;
  #fatal;
  #ignoreBOM;
  #rest = new Uint8Array(0); // what a streamed call left over
  #started = false; // whether the place of a byte order mark is behind us
  constructor(label = 'utf-8', options = {}) {
    const name = ENCODINGS[stringLower(stringTrim(`${label}`))];
    if (!name) throw codedError(RangeError, 'ERR_ENCODING_NOT_SUPPORTED', `The "${label}" encoding is not supported`);
    this.#encoding = name;
    this.#fatal = !!(options && options.fatal);
    this.#ignoreBOM = !!(options && options.ignoreBOM);
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBOM; }
  decode(input, options) {
    const stream = !!(options && options.stream);
    let [buffer, offset, length] = input === undefined ? [new ArrayBuffer(0), 0, 0] : bytesOf(input);
    if (this.#rest.length) {
      const whole = new Uint8Array(this.#rest.length + length);
      const added = new Uint8Array(buffer, offset, length);
      for (let i = 0; i < this.#rest.length; i++) whole[i] = this.#rest[i];
      for (let i = 0; i < length; i++) whole[this.#rest.length + i] = added[i];
      [buffer, offset, length] = [typedBuffer(whole), 0, typedLength(whole)];
    }
    let text;
    let used = length;
    if (this.#encoding === 'utf-8') {
      const decoded = host.decode(buffer, offset, length, this.#fatal, stream);
      if (decoded === null) throw this.#illFormed();
      [text, used] = [decoded[0], decoded[1]];
    } else {
      const bytes = new Uint8Array(buffer, offset, length);
      if (this.#encoding === 'windows-1252') text = decodeSingle(bytes);
      else [text, used] = this.#decodeWide(bytes, stream);
    }
    const rest = new Uint8Array(stream ? bufferSlice(buffer, offset + used, offset + length) : 0);
    this.#rest = rest;
    if (!this.#started && text.length) {
      if (!this.#ignoreBOM && this.#encoding !== 'windows-1252' && charCodeAt(text, 0) === 0xfeff) text = stringSlice(text, 1);
      this.#started = true;
    }
    if (!stream) this.#started = false;
    return text;
  }
  #illFormed() {
    this.#rest = new Uint8Array(0);
    this.#started = false;
    return codedError(TypeError, 'ERR_ENCODING_INVALID_ENCODED_DATA',
      `The encoded data was not valid for encoding ${this.#encoding}`);
  }
  #decodeWide(bytes, stream) {
    const big = this.#encoding === 'utf-16be';
    let used = bytes.length & ~1;
    let text = '';
    for (let i = 0; i < used; i += 2) {
      text += fromCharCode(big ? (bytes[i] << 8) | bytes[i + 1] : bytes[i] | (bytes[i + 1] << 8));
    }
    if (stream && text.length) {
      const last = charCodeAt(text, text.length - 1);
      if (last >= 0xd800 && last <= 0xdbff) {
        text = stringSlice(text, 0, -1);
        used -= 2;
      }
    } else if (bytes.length & 1) text += '\ud800';
    const formed = stringWellFormed(text);
    if (this.#fatal && formed !== text) throw this.#illFormed();
    return [formed, used];
  }
}

function decodeSingle(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    text += byte >= 0x80 && byte < 0xa0 ? WINDOWS_1252[byte - 0x80] : fromCharCode(byte);
  }
  return text;
}

for (const coder of [TextEncoder, TextDecoder]) tagged(coder);
expose({ TextEncoder, TextDecoder });

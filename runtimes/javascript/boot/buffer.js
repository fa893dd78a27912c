// node's Buffer: a Uint8Array that knows texts and numbers. What files are read into.
// Source: https://nodejs.org/docs/latest-v20.x/api/buffer.html

const SHOWN_BYTES = 50;
const typedFill = uncurry(TypedArray.prototype.fill);
const typedIndexOf = uncurry(TypedArray.prototype.indexOf);
const asUint8 = bytes => new Uint8Array(typedBuffer(bytes), typedOffset(bytes), typedBytes(bytes));

class Buffer extends Uint8Array {
  static poolSize = 8192;
  static from(value, encoding, length) {
    if (typeof value === 'string') return bufferOver(bytesOf(bytesFrom(value, encodingOf(encoding || 'utf8'))));
    if (value !== null && typeof value === 'object') {
      if (brand(value) === 'ArrayBuffer') return new Buffer(value, encoding, length);
      if (value.type === 'Buffer' && isArray(value.data)) value = value.data;
      const bytes = new Uint8Array(typeof value.length === 'number' ? value : 0);
      if (typeof value.length === 'number') return bufferOver(bytesOf(bytes));
      const plain = typeof value.valueOf === 'function' ? value.valueOf() : value;
      if (plain !== value) return Buffer.from(plain, encoding, length);
    }
    throw invalidArgument('first argument',
      'of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object', value);
  }
  static of(...items) { return Buffer.from(items); }
  static alloc(size, fill, encoding) {
    const made = new Buffer(sizeOf(size));
    return fill === undefined || fill === 0 ? made : made.fill(fill, encoding);
  }
  static allocUnsafe(size) { return new Buffer(sizeOf(size)); }
  static allocUnsafeSlow(size) { return new Buffer(sizeOf(size)); }
  static isBuffer(value) { return value instanceof Buffer; }
  static isEncoding(name) { return typeof name === 'string' && TEXTS[stringLower(name)] !== undefined; }
  static byteLength(value, encoding) {
    return typeof value === 'string' ? bytesFrom(value, encodingOf(encoding || 'utf8')).length : bytesOf(value)[2];
  }
  static concat(list, length) {
    if (!isArray(list)) throw invalidArgument('list', 'an instance of Array', list);
    const chunks = [];
    let total = 0;
    for (let i = 0; i < list.length; i++) {
      if (typedName(list[i]) !== 'Uint8Array') throw invalidArgument(`list[${i}]`, 'an instance of Buffer or Uint8Array', list[i]);
      push(chunks, list[i]);
      total += typedLength(list[i]);
    }
    const whole = new Buffer(total);
    for (let i = 0, at = 0; i < chunks.length; at += typedLength(chunks[i++])) typedSet(whole, chunks[i], at);
    if (length === undefined || length === total) return whole;
    const cut = new Buffer(sizeOf(length));
    typedSet(cut, length < total ? typedSubarray(whole, 0, length) : whole);
    return cut;
  }
  static compare(a, b) {
    const count = mathMin(typedLength(a), typedLength(b));
    for (let i = 0; i < count; i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
    return typedLength(a) === typedLength(b) ? 0 : typedLength(a) < typedLength(b) ? -1 : 1;
  }
  toString(encoding, start = 0, end = this.length) {
    const known = encodingOf(encoding || 'utf8');
    [start, end] = spanOf(start, end, typedLength(this));
    return textFrom([typedBuffer(this), typedOffset(this) + start, end - start], known);
  }
  toLocaleString(encoding, start, end) { return this.toString(encoding, start, end); }
  toJSON() {
    const data = [];
    for (let i = 0; i < this.length; i++) push(data, this[i]);
    return { type: 'Buffer', data };
  }
  equals(other) { return this === other || Buffer.compare(this, other) === 0; }
  compare(other) { return Buffer.compare(this, other); }
  slice(start, end) { return this.subarray(start, end); }
  copy(target, at = 0, start = 0, end = this.length) {
    [start, end] = spanOf(start, end, typedLength(this));
    end = mathMin(end, start + mathMax(0, typedLength(target) - at));
    typedSet(target, typedSubarray(asUint8(this), start, end), at);
    return end - start;
  }
  write(text, at = 0, length = undefined, encoding = undefined) {
    if (typeof at === 'string') [at, encoding] = [0, at];
    else if (typeof length === 'string') [length, encoding] = [undefined, length];
    const room = typedLength(this) - at;
    const bytes = bytesFrom(`${text}`, encodingOf(encoding || 'utf8'));
    const count = mathMin(bytes.length, room, length === undefined ? room : length);
    typedSet(this, typedSubarray(bytes, 0, count), at);
    return count;
  }
  fill(value, start, end, encoding) {
    if (typeof start === 'string') [start, end, encoding] = [undefined, undefined, start];
    if (typeof value === 'number') return typedFill(this, value, start, end);
    const bytes = typeof value === 'string' ? bytesFrom(value, encodingOf(encoding || 'utf8')) : asUint8(value);
    [start, end] = spanOf(start === undefined ? 0 : start, end === undefined ? this.length : end, typedLength(this));
    for (let i = start; i < end && bytes.length; i++) this[i] = bytes[(i - start) % bytes.length];
    return this;
  }
  indexOf(value, from = 0, encoding = undefined) {
    if (typeof value === 'number') return typedIndexOf(this, value & 255, from);
    const wanted = typeof value === 'string' ? bytesFrom(value, encodingOf(encoding || 'utf8')) : value;
    for (let i = from < 0 ? mathMax(0, this.length + from) : from; i + wanted.length <= this.length; i++) {
      let same = 0;
      while (same < wanted.length && this[i + same] === wanted[same]) same++;
      if (same === wanted.length) return i;
    }
    return -1;
  }
  includes(value, from, encoding) { return this.indexOf(value, from, encoding) >= 0; }
  [CUSTOM_INSPECT]() {
    let text = '';
    for (let i = 0; i < mathMin(this.length, SHOWN_BYTES); i++) text += (text && ' ') + HEX[this[i]];
    const more = this.length - SHOWN_BYTES;
    return `<Buffer ${text}${more > 0 ? ` ... ${more} more byte${more > 1 ? 's' : ''}` : ''}>`;
  }
}

function sizeOf(size) {
  if (typeof size !== 'number') throw invalidArgument('size', 'of type number', size);
  if (size >= 0 && size <= 0xffffffff) return mathFloor(size);
  throw codedError(RangeError, 'ERR_OUT_OF_RANGE', `The value of "size" is out of range. It must be >= 0 && <= 4294967295. Received ${size}`);
}

function spanOf(start, end, length) {
  start = mathMin(mathMax(trunc(+start) || 0, 0), length);
  return [start, mathMin(mathMax(trunc(+end) || 0, start), length)];
}

function bufferOver([buffer, offset, length]) {
  return new Buffer(buffer, offset, length);
}

/** `readUInt16LE` and its like, each by the DataView's method. */
function addNumbers(kind, bits, names) {
  const bytes = bits / 8;
  const read = uncurry(DataView.prototype[`get${kind}${bits}`]);
  const write = uncurry(DataView.prototype[`set${kind}${bits}`]);
  const viewAt = (buffer, at) => {
    if (typeof at !== 'number') throw invalidArgument('offset', 'of type number', at);
    if (!isInteger(at) || at < 0 || at + bytes > typedLength(buffer)) {
      throw codedError(RangeError, 'ERR_OUT_OF_RANGE',
        `The value of "offset" is out of range. It must be >= 0 and <= ${typedLength(buffer) - bytes}. Received ${at}`);
    }
    return new DataView(typedBuffer(buffer), typedOffset(buffer), typedBytes(buffer));
  };
  for (const name of names) {
    for (const order of bits === 8 ? [''] : ['LE', 'BE']) {
      const little = order === 'LE';
      define(Buffer.prototype, `read${name}${order}`, function (at = 0) { return read(viewAt(this, at), at, little); });
      define(Buffer.prototype, `write${name}${order}`, function (value, at = 0) {
        write(viewAt(this, at), at, value, little);
        return at + bytes;
      });
    }
  }
}
for (const bits of [8, 16, 32]) {
  addNumbers('Int', bits, [`Int${bits}`]);
  addNumbers('Uint', bits, [`UInt${bits}`, `Uint${bits}`]);
}
addNumbers('BigInt', 64, ['BigInt64']);
addNumbers('BigUint', 64, ['BigUInt64', 'BigUint64']);
addNumbers('Float', 32, ['Float']);
addNumbers('Float', 64, ['Double']);

const fileBytes = buffer => new Buffer(buffer);
expose({ Buffer });

// crypto, performance, and what QuickJS offers that is kept from snippets.

const QUOTA = 65536;
const INTEGER_ARRAYS = /^(Big)?(Int|Uint)(8|16|32|64)(Clamped)?Array$/;

const HEX = [];
for (let i = 0; i < 256; i++) push(HEX, stringPadStart(numberToString(i, 16), 2, '0'));

class Crypto {
  getRandomValues(array) {
    const name = array !== null && typeof array === 'object' ? typedName(array) : undefined;
    if (name === undefined || !regExpTest(INTEGER_ARRAYS, name)) {
      throw new DOMException('The data argument must be an integer-type TypedArray', 'TypeMismatchError');
    }
    const length = typedBytes(array);
    if (length > QUOTA) {
      throw new DOMException(`The requested length exceeds ${QUOTA} bytes`, 'QuotaExceededError');
    }
    host.entropy(typedBuffer(array), typedOffset(array), length);
    return array;
  }
  randomUUID() {
    const bytes = new Uint8Array(16);
    host.entropy(typedBuffer(bytes), 0, 16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = '';
    for (let i = 0; i < 16; i++) text += (i === 4 || i === 6 || i === 8 || i === 10 ? '-' : '') + HEX[bytes[i]];
    return text;
  }
}
tagged(Crypto);

let timeOrigin = 0;

class Performance {
  now() { return host.now(); }
  get timeOrigin() {
    if (!timeOrigin) timeOrigin = host.wall() - host.now();
    return timeOrigin;
  }
  mark() {}
  measure() {}
  toJSON() { return { timeOrigin: this.timeOrigin }; }
}
tagged(Performance);

expose({ crypto: new Crypto(), performance: new Performance(), Crypto, Performance });

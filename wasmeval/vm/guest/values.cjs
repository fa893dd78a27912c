// Values as JSON by the rules of docs/javascript.md, both ways. What the JavaScript image does in C (reactor.c).
'use strict';

const { types } = require('node:util');

const MOST_DEPTH = 256;

class NotJson extends Error {}
class TooLarge extends Error {}

const { getPrototypeOf, getOwnPropertyDescriptor, prototype: objectPrototype } = Object;
const { ownKeys, apply } = Reflect;
const { isArray } = Array;
const quote = JSON.stringify;
const integerText = BigInt.prototype.toString;

/** Writes one value; `room` is how many characters it may still have, so that what is far too long is never whole. */
class Writer {
  constructor(limit) {
    this.room = limit;
    this.parts = [];
    this.path = [];
  }

  put(text) {
    this.room -= text.length;
    if (this.room < 0) throw new TooLarge();
    this.parts.push(text);
  }

  value(value) {
    switch (typeof value) {
      case 'undefined': return this.put('null');
      case 'boolean': return this.put(value ? 'true' : 'false');
      case 'number': return this.put(value === 0 && 1 / value < 0 ? '-0.0' : `${value}`);
      case 'bigint': return this.put(apply(integerText, value, []));
      case 'string':
        if (value.length > this.room) throw new TooLarge();
        return this.put(quote(value));
      case 'object': return value === null ? this.put('null') : this.object(value);
      default: throw new NotJson();
    }
  }

  object(value) {
    if (this.path.length === MOST_DEPTH || this.path.includes(value)) throw new NotJson();
    this.path.push(value);
    const { toJSON } = value;
    if (typeof toJSON === 'function') this.value(apply(toJSON, value, []));
    else if (isArray(value)) this.array(value);
    else this.members(value);
    this.path.pop();
  }

  array(value) {
    const { length } = value;
    if (length > this.room) throw new TooLarge();
    this.put('[');
    for (let i = 0; i < length; i++) {
      if (i) this.put(',');
      this.value(value[i]);
    }
    this.put(']');
  }

  /** A plain object is one whose prototype is Object.prototype or null; any other has a class that JSON cannot say. */
  members(value) {
    const prototype = getPrototypeOf(value);
    const plain = prototype === null || prototype === objectPrototype;
    if (!plain || !isOrdinary(value)) throw new NotJson();
    const names = ownKeys(value).filter(key => {
      const property = getOwnPropertyDescriptor(value, key);
      return property !== undefined && property.enumerable;
    });
    if (names.some(name => typeof name === 'symbol')) throw new NotJson();
    this.put('{');
    let first = true;
    for (const name of names) {
      const item = value[name];
      if (item === undefined) continue;
      this.put(first ? `${quote(name)}:` : `,${quote(name)}:`);
      first = false;
      this.value(item);
    }
    this.put('}');
  }
}

/** Whether an object is no more than its members: one of a built-in class may have had its prototype taken. */
function isOrdinary(value) {
  return !(types.isNativeError(value) || types.isMap(value) || types.isSet(value) || types.isRegExp(value) ||
    types.isDate(value) || types.isBoxedPrimitive(value) || types.isAnyArrayBuffer(value) || types.isPromise(value) ||
    types.isWeakMap(value) || types.isWeakSet(value) || ArrayBuffer.isView(value) || types.isArgumentsObject(value) ||
    types.isGeneratorObject(value) || types.isModuleNamespaceObject(value));
}

/** JSON of at most `limit` bytes. NotJson, or whatever a getter or toJSON threw; TooLarge. */
function encode(value, limit = Infinity) {
  const writer = new Writer(limit);
  writer.value(value);
  const text = writer.parts.join('');
  if (Buffer.byteLength(text) > limit) throw new TooLarge();
  return text;
}

/** JSON, or null when the value cannot be said in it. */
function json(value) {
  try {
    return encode(value);
  } catch (error) {
    if (error instanceof RangeError) throw error;
    return null;
  }
}

// ---- reading ----

const SPECIAL = /NaN|Infinity|[0-9]{16}/;
const NUMBER = /-?(?:Infinity|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?/.source;
const TOKEN = new RegExp(`\\s*(?:([{}[\\],:])|("(?:[^"\\\\]|\\\\.)*")|(${NUMBER})|(NaN|true|false|null))`, 'y');
const WORDS = { __proto__: null, NaN, true: true, false: false, null: null };
const INTEGER = /^-?\d+$/;

/** The value of a JSON text. Integers that a Number cannot hold exactly are BigInts; NaN, Infinity are numbers. */
function parse(text) {
  return SPECIAL.test(text) ? new Reader(text).whole() : JSON.parse(text);
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  whole() {
    return this.value(this.token());
  }

  token() {
    TOKEN.lastIndex = this.at;
    const found = TOKEN.exec(this.text);
    if (found === null) throw new SyntaxError(`no JSON at ${this.at}`);
    this.at = TOKEN.lastIndex;
    return found;
  }

  value([, mark, text, number, word]) {
    if (text !== undefined) return JSON.parse(text);
    if (number !== undefined) return numberOf(number);
    if (word !== undefined) return WORDS[word];
    return mark === '[' ? this.array() : this.object();
  }

  array() {
    const items = [];
    for (let token = this.token(); token[1] !== ']'; token = this.token()) {
      if (token[1] !== ',') items.push(this.value(token));
    }
    return items;
  }

  object() {
    const members = {};
    for (let token = this.token(); token[1] !== '}'; token = this.token()) {
      if (token[2] === undefined) continue;
      const name = JSON.parse(token[2]);
      this.token();
      const value = this.value(this.token());
      Object.defineProperty(members, name, { value, writable: true, enumerable: true, configurable: true });
    }
    return members;
  }
}

function numberOf(text) {
  const number = Number(text);
  return INTEGER.test(text) && !Number.isSafeInteger(number) ? BigInt(text) : number;
}

module.exports = { NotJson, TooLarge, encode, json, parse };

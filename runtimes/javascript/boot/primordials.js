// What the rest of the library uses of the language, taken before any snippet could change it. A snippet that patches
// prototypes harms itself at most; it must not make the library fail in ways that hide its own output.

const { Array, BigInt, Date, Error, Map, Math, Number, Object, Promise, Proxy, Reflect, RegExp, Set, String, Symbol } =
  globalThis;
const { RangeError, ReferenceError, SyntaxError, TypeError, Uint8Array, WeakMap, ArrayBuffer, DataView } = globalThis;
const { apply, ownKeys, construct } = Reflect;
const { create, defineProperty, freeze, getOwnPropertyDescriptor, getPrototypeOf, setPrototypeOf, keys: objectKeys } =
  Object;
const { prototype: objectPrototype } = Object;
const { isArray } = Array;
const { isInteger, isFinite: numberIsFinite } = Number;
const { floor: mathFloor, ceil: mathCeil, min: mathMin, max: mathMax, round: mathRound, sqrt: mathSqrt, trunc } = Math;
const { toPrimitive: symbolToPrimitive, toStringTag, iterator: symbolIterator } = Symbol;

const uncurry = Function.prototype.bind.bind(Function.prototype.call);
const getterOf = (prototype, name) => uncurry(getOwnPropertyDescriptor(prototype, name).get);

const arrayShift = uncurry(Array.prototype.shift);
const arrayJoin = uncurry(Array.prototype.join);
const arraySlice = uncurry(Array.prototype.slice);
const arraySplice = uncurry(Array.prototype.splice);
const arraySort = uncurry(Array.prototype.sort);
const hasOwn = uncurry(Object.prototype.hasOwnProperty);
const isEnumerable = uncurry(Object.prototype.propertyIsEnumerable);
const objectToString = uncurry(Object.prototype.toString);
const functionToString = uncurry(Function.prototype.toString);
const errorToString = uncurry(Error.prototype.toString);
const dateToISO = uncurry(Date.prototype.toISOString);
const dateToString = uncurry(Date.prototype.toString);
const dateTime = uncurry(Date.prototype.getTime);
const regExpToString = uncurry(RegExp.prototype.toString);
const regExpExec = uncurry(RegExp.prototype.exec);
const regExpTest = uncurry(RegExp.prototype.test);
const regExpReplace = uncurry(RegExp.prototype[Symbol.replace]);
const mapForEach = uncurry(Map.prototype.forEach);
const mapGet = uncurry(Map.prototype.get);
const mapSet = uncurry(Map.prototype.set);
const mapHas = uncurry(Map.prototype.has);
const mapDelete = uncurry(Map.prototype.delete);
const mapClear = uncurry(Map.prototype.clear);
const mapSize = getterOf(Map.prototype, 'size');
const setForEach = uncurry(Set.prototype.forEach);
const setAdd = uncurry(Set.prototype.add);
const setSize = getterOf(Set.prototype, 'size');
const weakMapGet = uncurry(WeakMap.prototype.get);
const weakMapSet = uncurry(WeakMap.prototype.set);
const weakMapHas = uncurry(WeakMap.prototype.has);
const numberToString = uncurry(Number.prototype.toString);
const numberToFixed = uncurry(Number.prototype.toFixed);
const numberValue = uncurry(Number.prototype.valueOf);
const stringValue = uncurry(String.prototype.valueOf);
const booleanValue = uncurry(Boolean.prototype.valueOf);
const bigIntValue = uncurry(BigInt.prototype.valueOf);
const symbolValue = uncurry(Symbol.prototype.valueOf);
const symbolToString = uncurry(Symbol.prototype.toString);
const symbolDescription = getterOf(Symbol.prototype, 'description');
const charAt = uncurry(String.prototype.charAt);
const charCodeAt = uncurry(String.prototype.charCodeAt);
const codePointAt = uncurry(String.prototype.codePointAt);
const stringEndsWith = uncurry(String.prototype.endsWith);
const stringIncludes = uncurry(String.prototype.includes);
const stringIndexOf = uncurry(String.prototype.indexOf);
const stringLastIndexOf = uncurry(String.prototype.lastIndexOf);
const stringNormalize = uncurry(String.prototype.normalize);
const stringPadEnd = uncurry(String.prototype.padEnd);
const stringPadStart = uncurry(String.prototype.padStart);
const stringRepeat = uncurry(String.prototype.repeat);
const stringSlice = uncurry(String.prototype.slice);
const stringSplit = uncurry(String.prototype.split);
const stringStartsWith = uncurry(String.prototype.startsWith);
const stringLower = uncurry(String.prototype.toLowerCase);
const stringUpper = uncurry(String.prototype.toUpperCase);
const stringTrim = uncurry(String.prototype.trim);
const stringWellFormed = uncurry(String.prototype.toWellFormed);
const { fromCharCode, fromCodePoint } = String;

const TypedArray = getPrototypeOf(Uint8Array);
const typedBuffer = getterOf(TypedArray.prototype, 'buffer');
const typedOffset = getterOf(TypedArray.prototype, 'byteOffset');
const typedBytes = getterOf(TypedArray.prototype, 'byteLength');
const typedLength = getterOf(TypedArray.prototype, 'length');
const typedName = getterOf(TypedArray.prototype, toStringTag);
const viewBuffer = getterOf(DataView.prototype, 'buffer');
const viewOffset = getterOf(DataView.prototype, 'byteOffset');
const viewBytes = getterOf(DataView.prototype, 'byteLength');
const bufferBytes = getterOf(ArrayBuffer.prototype, 'byteLength');
const bufferSlice = uncurry(ArrayBuffer.prototype.slice);

/** Sets an own property that is not enumerable, whatever the prototypes say. */
function define(object, name, value) {
  defineProperty(object, name, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
}

/** `array[i] = value` that no setter on Array.prototype sees. */
function defineIndex(array, i, value) {
  defineProperty(array, i, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

function push(array, value) {
  defineIndex(array, array.length, value);
}

/** Makes names global as the platform's own are: writable, configurable, not enumerable. */
function expose(names) {
  const list = objectKeys(names);
  for (let i = 0; i < list.length; i++) define(globalThis, list[i], names[list[i]]);
}

/** An error as node makes it for a wrong argument. */
function invalidArgument(name, expected, actual) {
  const error = new TypeError(`The "${name}" argument must be ${expected}. Received ${received(actual)}`);
  define(error, 'code', 'ERR_INVALID_ARG_TYPE');
  return error;
}

function received(value) {
  if (value === null || value === undefined) return `${value}`;
  if (typeof value === 'function') return `function ${value.name}`;
  if (typeof value === 'object') {
    const name = value.constructor && value.constructor.name;
    return name ? `an instance of ${name}` : inspect(value, { depth: -1 });
  }
  let text = inspect(value);
  if (text.length > 28) text = stringSlice(text, 0, 25) + '...';
  return `type ${typeof value} (${text})`;
}

/** Gives a class of the platform its tag, and makes its members enumerable, as WebIDL has them. */
function tagged(Class) {
  defineProperty(Class.prototype, toStringTag, { __proto__: null, value: Class.name, configurable: true });
  const names = ownKeys(Class.prototype);
  for (let i = 0; i < names.length; i++) {
    if (typeof names[i] === 'symbol' || names[i] === 'constructor') continue;
    defineProperty(Class.prototype, names[i], { __proto__: null, enumerable: true });
  }
}

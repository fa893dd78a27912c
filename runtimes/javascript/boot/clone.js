// structuredClone. Source: https://html.spec.whatwg.org/multipage/structured-data.html#structuredserializeinternal

const ERROR_NAMES = ['Error', 'EvalError', 'RangeError', 'ReferenceError', 'SyntaxError', 'TypeError', 'URIError'];
const ERRORS = create(null);
for (const name of ERROR_NAMES) ERRORS[name] = globalThis[name];
const regExpSource = getterOf(RegExp.prototype, 'source');
const regExpFlags = getterOf(RegExp.prototype, 'flags');

function notCloneable(value) {
  let text;
  if (typeof value === 'symbol') text = symbolToString(value);
  else if (typeof value === 'function') text = functionToString(value);
  else text = `#<${typeName(value)}>`;
  return new DOMException(`${text} could not be cloned.`, 'DataCloneError');
}

function clone(value, seen) {
  if (typeof value === 'symbol' || typeof value === 'function') throw notCloneable(value);
  if (value === null || typeof value !== 'object') return value;
  if (mapHas(seen, value)) return mapGet(seen, value);
  const kind = brand(value);
  switch (kind) {
    case 'Number':
    case 'String':
    case 'Boolean':
    case 'BigInt':
      return remember(seen, value, Object(UNBOX[kind](value)));
    case 'Date':
      return remember(seen, value, new Date(dateTime(value)));
    case 'RegExp':
      return remember(seen, value, new RegExp(regExpSource(value), regExpFlags(value)));
    case 'ArrayBuffer':
      return remember(seen, value, bufferSlice(value, 0));
    case 'DataView': {
      const buffer = clone(viewBuffer(value), seen);
      return remember(seen, value, new DataView(buffer, viewOffset(value), viewBytes(value)));
    }
    case 'Map':
      return cloneMap(value, seen);
    case 'Set':
      return cloneSet(value, seen);
    case 'Error':
      return cloneError(value, seen);
    case 'Array': {
      const copy = remember(seen, value, new Array(value.length));
      return cloneMembers(value, copy, seen);
    }
    case 'Object':
    case 'Arguments':
      return cloneMembers(value, remember(seen, value, {}), seen);
  }
  const typed = typedName(value);
  if (typed === undefined) throw notCloneable(value);
  const buffer = clone(typedBuffer(value), seen);
  return remember(seen, value, construct(TYPED_ARRAYS[typed], [buffer, typedOffset(value), typedLength(value)]));
}

const TYPED_ARRAYS = create(null);
for (const name of ownKeys(globalThis)) {
  const Class = typeof name === 'string' && /Array$/.test(name) ? globalThis[name] : undefined;
  if (typeof Class === 'function' && getPrototypeOf(Class) === TypedArray) TYPED_ARRAYS[name] = Class;
}

function remember(seen, value, copy) {
  mapSet(seen, value, copy);
  return copy;
}

function cloneMembers(value, copy, seen) {
  const keys = objectKeys(value);
  for (let i = 0; i < keys.length; i++) {
    if (hasOwn(value, keys[i])) defineIndex(copy, keys[i], clone(value[keys[i]], seen));
  }
  return copy;
}

function cloneMap(value, seen) {
  const copy = remember(seen, value, new Map());
  const entries = [];
  mapForEach(value, (item, key) => push(entries, [key, item]));
  for (let i = 0; i < entries.length; i++) mapSet(copy, clone(entries[i][0], seen), clone(entries[i][1], seen));
  return copy;
}

function cloneSet(value, seen) {
  const copy = remember(seen, value, new Set());
  const items = [];
  setForEach(value, item => push(items, item));
  for (let i = 0; i < items.length; i++) setAdd(copy, clone(items[i], seen));
  return copy;
}

function cloneError(value, seen) {
  const Class = ERRORS[value.name] || Error;
  const made = remember(seen, value, new Class());
  if (hasOwn(value, 'message')) define(made, 'message', `${value.message}`);
  define(made, 'stack', value.stack);
  if (hasOwn(value, 'cause')) define(made, 'cause', clone(value.cause, seen));
  return made;
}

function structuredClone(value, options) {
  if (arguments.length === 0) throw new TypeError('The "value" argument must be specified');
  const given = options === undefined || options === null ? undefined : options.transfer;
  const transfer = given === undefined ? [] : [...given];
  for (let i = 0; i < transfer.length; i++) {
    if (brand(transfer[i]) !== 'ArrayBuffer') {
      throw new DOMException('Found invalid object in transferList', 'DataCloneError');
    }
  }
  const copy = clone(value, new Map());
  for (let i = 0; i < transfer.length; i++) detach(transfer[i]);
  return copy;
}

/** Takes the bytes away from a buffer; the copy has them. */
const detach = uncurry(ArrayBuffer.prototype.transfer);

expose({ structuredClone });

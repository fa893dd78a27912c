// inspect: values as text, in the shape that node's util.inspect gives them, without colours.
// Source: https://nodejs.org/docs/latest-v20.x/api/util.html#utilinspectobject-options

const { brand } = host;
const CUSTOM_INSPECT = Symbol.for('nodejs.util.inspect.custom');
const { getOwnPropertyNames, getOwnPropertySymbols } = Object;

const DEFAULTS = {
  __proto__: null,
  showHidden: false,
  depth: 2,
  customInspect: true,
  maxArrayLength: 100,
  maxStringLength: 10000,
  breakLength: 80,
  compact: 3,
  sorted: false,
  getters: false,
};

// How the members of a value are written: `name: value`, or the value alone for an array's elements; an array's other
// members are written by name, but its output may be set in columns.
const BY_NAME = 0;
const ELEMENT = 1;
const COLUMNS = 2;

const PLAIN_KEY = /^[a-zA-Z_][a-zA-Z_0-9]*$/;
const INDEX = /^(0|[1-9][0-9]*)$/;
const MUST_ESCAPE = /[\x00-\x1f\x27\x5c\x7f-\x9f]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const SHORT_ESCAPES = { __proto__: null, 8: '\\b', 9: '\\t', 10: '\\n', 12: '\\f', 13: '\\r', 92: '\\\\' };
const BUILT_IN = new Set();
for (const name of getOwnPropertyNames(globalThis)) if (/^[A-Z][a-zA-Z0-9]+$/.test(name)) BUILT_IN.add(name);
const isBuiltIn = (() => {
  const has = uncurry(Set.prototype.has);
  return name => has(BUILT_IN, name);
})();

function isDOMException(value) {
  return brand(value) === 'DOMException';
}

/** A quoted string literal, with the quotes that need the fewest escapes. */
function quote(text) {
  let mark = "'";
  if (stringIncludes(text, "'")) {
    if (!stringIncludes(text, '"')) mark = '"';
    else if (!stringIncludes(text, '`') && !stringIncludes(text, '${')) mark = '`';
  }
  if (!regExpTest(MUST_ESCAPE, text)) return mark + text + mark;
  let out = '';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = charCodeAt(text, i);
    const escape = escapeOf(text, i, unit, mark);
    if (escape === '') {
      if (unit >= 0xd800 && unit <= 0xdbff) i++;
      continue;
    }
    out += stringSlice(text, start, i) + escape;
    start = i + 1;
  }
  return mark + out + stringSlice(text, start) + mark;
}

function escapeOf(text, i, unit, mark) {
  if (unit === 39) return mark === "'" ? "\\'" : '';
  if (unit === 92 || unit < 32 || (unit >= 0x7f && unit <= 0x9f)) {
    return SHORT_ESCAPES[unit] || `\\x${stringPadStart(stringUpper(numberToString(unit, 16)), 2, '0')}`;
  }
  if (unit < 0xd800 || unit > 0xdfff) return '';
  const next = unit <= 0xdbff && i + 1 < text.length ? charCodeAt(text, i + 1) : 0;
  return next >= 0xdc00 && next <= 0xdfff ? '' : `\\u${numberToString(unit, 16)}`;
}

function numberText(value) {
  return value === 0 && 1 / value < 0 ? '-0' : `${value}`;
}

function plural(count, noun) {
  return `${count} ${noun}${count > 1 ? 's' : ''}`;
}

function moreItems(count) {
  return `... ${plural(count, 'more item')}`;
}

function primitiveText(ctx, value) {
  switch (typeof value) {
    case 'string':
      return stringText(ctx, value);
    case 'number':
      return numberText(value);
    case 'bigint':
      return `${value}n`;
    case 'symbol':
      return symbolToString(value);
    default:
      return `${value}`;
  }
}

/** A string; a long one with line feeds is set as one literal a line. */
function stringText(ctx, value) {
  let trailer = '';
  if (value.length > ctx.maxStringLength) {
    const left = value.length - ctx.maxStringLength;
    value = stringSlice(value, 0, ctx.maxStringLength);
    trailer = `... ${plural(left, 'more character')}`;
  }
  if (value.length > 16 && value.length > ctx.breakLength - ctx.indentation - 4 && stringIncludes(value, '\n')) {
    const lines = stringSplit(value, '\n');
    const quoted = [];
    for (let i = 0; i < lines.length; i++) {
      const line = i < lines.length - 1 ? lines[i] + '\n' : lines[i];
      if (line) push(quoted, quote(line));
    }
    return arrayJoin(quoted, ` +\n${stringRepeat(' ', ctx.indentation + 2)}`) + trailer;
  }
  return quote(value) + trailer;
}

/** The name of the constructor nearest on the prototype chain, null when the chain has none. */
function constructorName(ctx, value, level) {
  let object = value;
  let first;
  while (object) {
    const descriptor = getOwnPropertyDescriptor(object, 'constructor');
    if (descriptor && typeof descriptor.value === 'function' && descriptor.value.name !== '' &&
        isInstance(value, descriptor.value)) {
      return `${descriptor.value.name}`;
    }
    object = getPrototypeOf(object);
    if (first === undefined) first = object;
  }
  if (first === null) return null;
  const own = brand(value);
  if (level > ctx.depth) return `${own} <Complex prototype>`;
  const name = constructorName(ctx, first, level + 1);
  return name === null ? `${own} <${inspect(first, { customInspect: false, depth: -1 })}>` : `${own} <${name}>`;
}

function isInstance(value, constructor) {
  try {
    return value instanceof constructor;
  } catch {
    return false;
  }
}

function prefixOf(name, tag, fallback, size = '') {
  if (name === null) {
    const kind = `[${fallback}${size}: null prototype] `;
    return tag !== '' && fallback !== tag ? `${kind}[${tag}] ` : kind;
  }
  return tag !== '' && name !== tag ? `${name}${size} [${tag}] ` : `${name}${size} `;
}

function keysOf(ctx, value, withoutIndices) {
  const names = ctx.showHidden ? getOwnPropertyNames(value) : objectKeys(value);
  const symbols = getOwnPropertySymbols(value);
  const keys = [];
  for (let i = 0; i < names.length; i++) {
    if (!withoutIndices || !regExpTest(INDEX, names[i])) push(keys, names[i]);
  }
  for (let i = 0; i < symbols.length; i++) {
    if (ctx.showHidden || isEnumerable(value, symbols[i])) push(keys, symbols[i]);
  }
  return keys;
}

function formatValue(ctx, value, level, inTypedArray) {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function')) return primitiveText(ctx, value);
  const given = value;
  while (brand(value) === 'Proxy') {
    value = host.target(value);
    if (value === null || value === undefined) return '<Revoked Proxy>';
  }
  if (ctx.customInspect) {
    const custom = given[CUSTOM_INSPECT];
    if (typeof custom === 'function' && custom !== inspect) {
      const depth = ctx.depth - level;
      const result = apply(custom, given, [depth, optionsOf(ctx, depth), inspect]);
      if (result !== given) {
        if (typeof result !== 'object') return `${result}`;
        return stringReplaceLines(formatValue(ctx, result, level), ctx.indentation);
      }
    }
  }
  for (let i = 0; i < ctx.seen.length; i++) {
    if (ctx.seen[i] === value) return `[Circular *${circularIndex(ctx, value)}]`;
  }
  return formatObject(ctx, value, level, inTypedArray);
}

function stringReplaceLines(text, indentation) {
  return arrayJoin(stringSplit(text, '\n'), `\n${stringRepeat(' ', indentation)}`);
}

function optionsOf(ctx, depth) {
  const options = { depth };
  for (const key in DEFAULTS) if (key !== 'depth') options[key] = ctx[key];
  options.stylize = text => text;
  return options;
}

function circularIndex(ctx, value) {
  for (let i = 0; i < ctx.circular.length; i++) if (ctx.circular[i] === value) return i + 1;
  push(ctx.circular, value);
  return ctx.circular.length;
}

/** What is to be written of an object: see `shapeOf`. */
function shape(base, open, close, keys, items, layout) {
  return { __proto__: null, base, open, close, keys, items, layout, whole: undefined };
}

function whole(text) {
  return { __proto__: null, whole: text };
}

function formatObject(ctx, value, level, inTypedArray) {
  const name = constructorName(ctx, value, level);
  let tag = value[toStringTag];
  if (typeof tag !== 'string' || (tag !== '' && (ctx.showHidden ? hasOwn : isEnumerable)(value, toStringTag))) tag = '';
  const form = shapeOf(ctx, value, name, tag, level, inTypedArray);
  if (form.whole !== undefined) return form.whole;
  if (level > ctx.depth) return `[${stringSlice(prefixOf(name, tag, isArray(value) ? 'Array' : 'Object'), 0, -1)}]`;
  push(ctx.seen, value);
  ctx.current = level + 1;
  const output = form.items ? form.items(ctx, value, level + 1) : [];
  for (let i = 0; i < form.keys.length; i++) push(output, formatMember(ctx, value, level + 1, form.keys[i], form.layout));
  ctx.seen.length--;
  let base = form.base;
  for (let i = 0; i < ctx.circular.length; i++) {
    if (ctx.circular[i] === value) base = base === '' ? `<ref *${i + 1}>` : `<ref *${i + 1}> ${base}`;
  }
  if (ctx.sorted) arraySort(output, typeof ctx.sorted === 'function' ? ctx.sorted : undefined);
  return layOut(ctx, output, base, form, level + 1, value);
}

function shapeOf(ctx, value, name, tag, level, inTypedArray) {
  const kind = brand(value);
  if (isArray(value)) {
    const prefix = name !== 'Array' || tag !== '' ? prefixOf(name, tag, 'Array', `(${value.length})`) : '';
    const keys = keysOf(ctx, value, true);
    if (value.length === 0 && keys.length === 0) return whole(`${prefix}[]`);
    return shape('', `${prefix}[`, ']', keys, arrayItems, COLUMNS);
  }
  switch (kind) {
    case 'Set':
    case 'Map': {
      const size = kind === 'Set' ? setSize(value) : mapSize(value);
      const prefix = prefixOf(name, tag, kind, `(${size})`);
      const keys = keysOf(ctx, value);
      if (size === 0 && keys.length === 0) return whole(`${prefix}{}`);
      return shape('', `${prefix}{`, '}', keys, kind === 'Set' ? setItems : mapItems, BY_NAME);
    }
    case 'Arguments': {
      const keys = keysOf(ctx, value);
      return keys.length ? shape('', '[Arguments] {', '}', keys, undefined, BY_NAME) : whole('[Arguments] {}');
    }
    case 'RegExp':
    case 'Date':
    case 'Error':
    case 'DOMException':
    case 'Number':
    case 'String':
    case 'Boolean':
    case 'Symbol':
    case 'BigInt':
      return basedShape(ctx, value, kind, name, tag, level);
    case 'ArrayBuffer':
    case 'SharedArrayBuffer': {
      const prefix = prefixOf(name, tag, kind);
      const keys = keysOf(ctx, value);
      if (inTypedArray && keys.length === 0) return whole(`${prefix}{ byteLength: ${bufferBytes(value)} }`);
      return shape('', `${prefix}{`, '}', ['byteLength', ...keys], inTypedArray ? undefined : bufferItems, BY_NAME);
    }
    case 'DataView': {
      const keys = ['byteLength', 'byteOffset', 'buffer', ...keysOf(ctx, value)];
      return shape('', `${prefixOf(name, tag, kind)}{`, '}', keys, undefined, BY_NAME);
    }
    case 'Promise':
      return shape('', `${prefixOf(name, tag, kind)}{`, '}', keysOf(ctx, value), promiseItems, BY_NAME);
    case 'Map Iterator':
    case 'Set Iterator': {
      const entries = host.rest(value)[1];
      const label = entries ? `${stringSlice(kind, 0, 3)} Entries` : tag || kind;
      return shape('', `[${label}] {`, '}', keysOf(ctx, value), iteratorItems, entries ? COLUMNS : BY_NAME);
    }
    case 'WeakSet':
    case 'WeakMap':
      return shape('', `${prefixOf(name, tag, kind)}{`, '}', keysOf(ctx, value), () => ['<items unknown>'], BY_NAME);
  }
  if (typeof value === 'function') {
    const base = functionBase(value, name, tag);
    const keys = keysOf(ctx, value);
    return keys.length === 0 ? whole(base) : shape(base, '{', '}', keys, undefined, BY_NAME);
  }
  const typed = typedName(value);
  if (typed !== undefined) {
    const size = typedLength(value);
    const prefix = prefixOf(name, tag, typed, `(${size})`);
    const keys = keysOf(ctx, value, true);
    if (size === 0 && keys.length === 0 && !ctx.showHidden) return whole(`${prefix}[]`);
    return shape('', `${prefix}[`, ']', keys, typedItems, COLUMNS);
  }
  const keys = keysOf(ctx, value);
  const prefix = name === 'Object' && tag === '' ? '' : prefixOf(name, tag, 'Object');
  return keys.length === 0 ? whole(`${prefix}{}`) : shape('', `${prefix}{`, '}', keys, undefined, BY_NAME);
}

/** Values that have a text of their own before their members. */
function basedShape(ctx, value, kind, name, tag, level) {
  let keys;
  let base;
  if (kind === 'Error' || kind === 'DOMException') {
    keys = keysOf(ctx, value);
    base = errorBase(ctx, value, name, tag, keys);
  } else if (kind === 'RegExp' || kind === 'Date') {
    keys = keysOf(ctx, value);
    base = kind === 'RegExp' ? regExpToString(value) : dateTime(value) === dateTime(value) ? dateToISO(value) : dateToString(value);
    const prefix = prefixOf(name, tag, kind);
    if (prefix !== `${kind} `) base = prefix + base;
    if (kind === 'RegExp' && level > ctx.depth) return whole(base);
  } else {
    keys = keysOf(ctx, value, kind === 'String');
    base = boxedBase(ctx, value, kind, name, tag);
  }
  return keys.length === 0 ? whole(base) : shape(base, '{', '}', keys, undefined, BY_NAME);
}

const UNBOX = {
  __proto__: null,
  Number: numberValue,
  String: stringValue,
  Boolean: booleanValue,
  Symbol: symbolValue,
  BigInt: bigIntValue,
};

function boxedBase(ctx, value, kind, name, tag) {
  let base = `[${kind}`;
  if (kind !== name) base += name === null ? ' (null prototype)' : ` (${name})`;
  base += `: ${primitiveText({ ...ctx, breakLength: Infinity }, UNBOX[kind](value))}]`;
  return tag !== '' && tag !== name ? `${base} [${tag}]` : base;
}

const FUNCTION_KINDS = {
  __proto__: null,
  GeneratorFunction: 'GeneratorFunction',
  AsyncFunction: 'AsyncFunction',
  AsyncGeneratorFunction: 'AsyncGeneratorFunction',
};

function functionBase(value, name, tag) {
  const text = functionToString(value);
  if (stringStartsWith(text, 'class') && stringEndsWith(text, '}')) return classBase(value, name, tag);
  const type = FUNCTION_KINDS[brand(value)] || 'Function';
  let base = `[${type}`;
  if (name === null) base += ' (null prototype)';
  base += value.name === '' ? ' (anonymous)]' : `: ${typeof value.name === 'string' ? value.name : inspect(value.name)}]`;
  if (name !== type && name !== null) base += ` ${name}`;
  return tag !== '' && name !== tag ? `${base} [${tag}]` : base;
}

function classBase(value, name, tag) {
  let base = `[class ${(hasOwn(value, 'name') && value.name) || '(anonymous)'}`;
  if (name !== 'Function' && name !== null) base += ` [${name}]`;
  if (tag !== '' && name !== tag) base += ` [${tag}]`;
  if (name === null) return `${base} extends null]`;
  const parent = getPrototypeOf(value).name;
  return parent ? `${base} extends ${parent}]` : `${base}]`;
}

/** An error's stack, its first line mended to tell the class; takes from the keys what the stack already says. */
function errorBase(ctx, error, name, tag, keys) {
  const own = error.name !== undefined && error.name !== null ? `${error.name}` : 'Error';
  let stack = error.stack ? `${error.stack}` : errorToString(error);
  if (!ctx.showHidden) {
    for (const key of ['name', 'message', 'stack']) {
      for (let i = keys.length - 1; i >= 0; i--) {
        if (keys[i] === key && stringIncludes(stack, `${error[key]}`)) arraySplice(keys, i, 1);
      }
    }
  }
  if ('cause' in error) addKey(keys, 'cause');
  if (isArray(error.errors)) addKey(keys, 'errors');
  stack = improveStack(stack, name, own, tag);
  const message = error.message;
  let from = typeof message === 'string' && message ? stringIndexOf(stack, message) : -1;
  if (from >= 0) from += message.length;
  if (stringIndexOf(stack, '\n    at', from) < 0) stack = `[${stack}]`;
  return ctx.indentation ? stringReplaceLines(stack, ctx.indentation) : stack;
}

function addKey(keys, key) {
  for (let i = 0; i < keys.length; i++) if (keys[i] === key) return;
  push(keys, key);
}

function improveStack(stack, constructor, name, tag) {
  let length = name.length;
  const regular = stringEndsWith(name, 'Error') && stringStartsWith(stack, name) &&
    (stack.length === length || stack[length] === ':' || stack[length] === '\n');
  if (constructor !== null && !regular) return stack;
  let fallback = 'Error';
  if (constructor === null) {
    const start = regExpExec(/^([A-Z][a-z_ A-Z0-9[\]()-]+)(?::|\n\s+at)/, stack) ||
      regExpExec(/^([a-z_A-Z0-9-]*Error)$/, stack);
    fallback = (start && start[1]) || '';
    length = fallback.length;
    fallback = fallback || 'Error';
  }
  const prefix = stringSlice(prefixOf(constructor, tag, fallback), 0, -1);
  if (name === prefix) return stack;
  if (stringIncludes(prefix, name)) return length === 0 ? `${prefix}: ${stack}` : prefix + stringSlice(stack, length);
  return `${prefix} [${name}]${stringSlice(stack, length)}`;
}

// ---- members

function formatMember(ctx, value, level, key, layout) {
  const descriptor = getOwnPropertyDescriptor(value, key) || { value: value[key], enumerable: true };
  let text;
  if (descriptor.value !== undefined) {
    ctx.indentation += 2;
    text = formatValue(ctx, descriptor.value, level);
    ctx.indentation -= 2;
  } else if (descriptor.get !== undefined) {
    text = getterText(ctx, value, level, key, descriptor);
  } else {
    text = descriptor.set !== undefined ? '[Setter]' : 'undefined';
  }
  if (layout === ELEMENT) return text;
  return `${memberName(key, descriptor)}: ${text}`;
}

function getterText(ctx, value, level, key, descriptor) {
  const label = descriptor.set !== undefined ? 'Getter/Setter' : 'Getter';
  if (!ctx.getters) return `[${label}]`;
  try {
    const got = apply(descriptor.get, value, []);
    ctx.indentation += 2;
    const text = got !== null && typeof got === 'object'
      ? `[${label}] ${formatValue(ctx, got, level)}`
      : `[${label}: ${primitiveText(ctx, got)}]`;
    ctx.indentation -= 2;
    return text;
  } catch (error) {
    return `[${label}: <Inspection threw (${error && error.message})>]`;
  }
}

function memberName(key, descriptor) {
  if (typeof key === 'symbol') return `[${symbolToString(key)}]`;
  if (key === '__proto__') return "['__proto__']";
  if (descriptor.enumerable === false) return `[${key}]`;
  return regExpTest(PLAIN_KEY, key) ? key : quote(key);
}

function arrayItems(ctx, value, level) {
  const shown = mathMin(mathMax(0, ctx.maxArrayLength), value.length);
  const output = [];
  for (let i = 0; i < shown; i++) {
    if (!hasOwn(value, i)) return sparseItems(ctx, value, level, shown, output, i);
    push(output, formatMember(ctx, value, level, i, ELEMENT));
  }
  if (value.length > shown) push(output, moreItems(value.length - shown));
  return output;
}

/** The rest of an array from its first hole on; a run of holes counts as one item. */
function sparseItems(ctx, value, level, shown, output, index) {
  const keys = objectKeys(value);
  for (let i = index; i < keys.length && output.length < shown; i++) {
    const key = keys[i];
    if (!regExpTest(INDEX, key) || +key > 4294967294) break;
    if (`${index}` !== key) {
      push(output, `<${plural(+key - index, 'empty item')}>`);
      index = +key;
      if (output.length === shown) break;
    }
    push(output, formatMember(ctx, value, level, key, ELEMENT));
    index++;
  }
  const left = value.length - index;
  if (left > 0) push(output, output.length !== shown ? `<${plural(left, 'empty item')}>` : moreItems(left));
  return output;
}

function typedItems(ctx, value, level) {
  const size = typedLength(value);
  const shown = mathMin(mathMax(0, ctx.maxArrayLength), size);
  const output = [];
  for (let i = 0; i < shown; i++) push(output, primitiveText(ctx, value[i]));
  if (size > shown) push(output, moreItems(size - shown));
  if (ctx.showHidden) {
    ctx.indentation += 2;
    for (const key of ['BYTES_PER_ELEMENT', 'length', 'byteLength', 'byteOffset', 'buffer']) {
      push(output, `[${key}]: ${formatValue(ctx, value[key], level, true)}`);
    }
    ctx.indentation -= 2;
  }
  return output;
}

function setItems(ctx, value, level) {
  const output = [];
  let left = 0;
  ctx.indentation += 2;
  setForEach(value, item => {
    if (output.length < ctx.maxArrayLength) push(output, formatValue(ctx, item, level));
    else left++;
  });
  ctx.indentation -= 2;
  if (left) push(output, moreItems(left));
  return output;
}

function mapItems(ctx, value, level) {
  const output = [];
  let left = 0;
  ctx.indentation += 2;
  mapForEach(value, (item, key) => {
    if (output.length < ctx.maxArrayLength) {
      push(output, `${formatValue(ctx, key, level)} => ${formatValue(ctx, item, level)}`);
    } else left++;
  });
  ctx.indentation -= 2;
  if (left) push(output, moreItems(left));
  return output;
}

function iteratorItems(ctx, value, level) {
  const [items, entries] = host.rest(value);
  const output = [];
  ctx.indentation += 2;
  for (let i = 0; i < items.length; i += entries ? 2 : 1) {
    push(output, entries
      ? `[ ${formatValue(ctx, items[i], level)}, ${formatValue(ctx, items[i + 1], level)} ]`
      : formatValue(ctx, items[i], level));
  }
  ctx.indentation -= 2;
  return output;
}

function bufferItems(ctx, value) {
  const bytes = new Uint8Array(value);
  const shown = mathMin(mathMax(0, ctx.maxArrayLength), bytes.length);
  let text = '';
  for (let i = 0; i < shown; i++) text += (i ? ' ' : '') + stringPadStart(numberToString(bytes[i], 16), 2, '0');
  if (bytes.length > shown) text += ` ... ${plural(bytes.length - shown, 'more byte')}`;
  return [`[Uint8Contents]: <${text}>`];
}

function promiseItems(ctx, value, level) {
  const state = host.promise(value);
  if (state[0] === 0) return ['<pending>'];
  ctx.indentation += 2;
  const text = formatValue(ctx, state[1], level);
  ctx.indentation -= 2;
  return [state[0] === 2 ? `<rejected> ${text}` : text];
}

// ---- layout

/** One line when it is short and not deep, else one member a line; long arrays of short elements in columns. */
function layOut(ctx, output, base, form, level, value) {
  const before = base ? `${base} ` : '';
  if (ctx.compact >= 1) {
    const entries = output.length;
    if (form.layout === COLUMNS && entries > 6) output = columns(ctx, output, value);
    if (ctx.current - level < ctx.compact && entries === output.length) {
      const start = output.length + ctx.indentation + form.open.length + base.length + 10;
      if (fits(ctx, output, start, base)) {
        const joined = arrayJoin(output, ', ');
        if (!stringIncludes(joined, '\n')) return `${before}${form.open} ${joined} ${form.close}`;
      }
    }
  }
  const indent = `\n${stringRepeat(' ', ctx.indentation)}`;
  return `${before}${form.open}${indent}  ${arrayJoin(output, `,${indent}  `)}${indent}${form.close}`;
}

function fits(ctx, output, start, base) {
  let total = output.length + start;
  if (total + output.length > ctx.breakLength) return false;
  for (let i = 0; i < output.length; i++) {
    total += output[i].length;
    if (total > ctx.breakLength) return false;
  }
  return base === '' || !stringIncludes(base, '\n');
}

/** Elements in columns of even width: about 2.5 times as wide as high, 16 columns and four times `compact` at most. */
function columns(ctx, output, value) {
  const count = output.length - (ctx.maxArrayLength < output.length ? 1 : 0);
  let total = 0;
  let longest = 0;
  for (let i = 0; i < count; i++) {
    total += output[i].length + 2;
    if (output[i].length > longest) longest = output[i].length;
  }
  const widest = longest + 2;
  if (widest * 3 + ctx.indentation >= ctx.breakLength || (total / widest <= 5 && longest > 6)) return output;
  const bias = mathSqrt(widest - total / output.length);
  const biased = mathMax(widest - 3 - bias, 1);
  const width = mathMin(
    mathRound(mathSqrt(2.5 * biased * count) / biased),
    mathFloor((ctx.breakLength - ctx.indentation) / widest),
    ctx.compact * 4,
    15,
  );
  if (width <= 1) return output;
  const widths = [];
  for (let i = 0; i < width; i++) {
    let most = 0;
    for (let j = i; j < count; j += width) if (output[j].length > most) most = output[j].length;
    push(widths, most + 2);
  }
  let numbers = value !== undefined;
  for (let i = 0; numbers && i < output.length; i++) {
    if (typeof value[i] !== 'number' && typeof value[i] !== 'bigint') numbers = false;
  }
  const pad = numbers ? stringPadStart : stringPadEnd;
  const rows = [];
  for (let i = 0; i < count; i += width) {
    const end = mathMin(i + width, count);
    let row = '';
    for (let j = i; j < end - 1; j++) row += pad(`${output[j]}, `, widths[j - i]);
    row += numbers ? stringPadStart(output[end - 1], widths[end - 1 - i] - 2) : output[end - 1];
    push(rows, row);
  }
  if (count < output.length) push(rows, output[count]);
  return rows;
}

// ---- the interface

function inspect(value, options) {
  const ctx = { ...DEFAULTS, seen: [], circular: [], indentation: 0, current: 0 };
  if (options !== null && typeof options === 'object') {
    for (const key in DEFAULTS) if (options[key] !== undefined) ctx[key] = options[key];
  }
  if (ctx.depth === null) ctx.depth = Infinity;
  if (ctx.maxArrayLength === null) ctx.maxArrayLength = Infinity;
  if (ctx.maxStringLength === null) ctx.maxStringLength = Infinity;
  if (ctx.compact === false) ctx.compact = 0;
  return formatValue(ctx, value, 0);
}
define(inspect, 'custom', CUSTOM_INSPECT);

/** Whether `%s` writes the object by inspect: true unless a class of the snippet's own says toString. */
function hasBuiltInToString(value) {
  if (brand(value) === 'Proxy') return true;
  if (hasOwn(value, 'toString') || hasOwn(value, symbolToPrimitive)) return false;
  let at = value;
  do {
    at = getPrototypeOf(at);
    if (at === null) return true;
  } while (!hasOwn(at, 'toString'));
  const descriptor = getOwnPropertyDescriptor(at, 'constructor');
  return descriptor !== undefined && typeof descriptor.value === 'function' && isBuiltIn(descriptor.value.name);
}

const jsonStringify = JSON.stringify;
const { parseInt: parseInteger, parseFloat: parseDecimal } = globalThis;

function directive(letter, value) {
  switch (letter) {
    case 's':
      if (typeof value === 'number') return numberText(value);
      if (typeof value === 'bigint') return `${value}n`;
      if (typeof value !== 'object' || value === null || !hasBuiltInToString(value)) return String(value);
      return inspect(value, { depth: 0 });
    case 'd':
      return typeof value === 'bigint' ? `${value}n` : typeof value === 'symbol' ? 'NaN' : numberText(Number(value));
    case 'i':
      return typeof value === 'bigint' ? `${value}n` : typeof value === 'symbol' ? 'NaN' : numberText(parseInteger(value));
    case 'f':
      return typeof value === 'symbol' ? 'NaN' : numberText(parseDecimal(value));
    case 'j':
      try {
        return jsonStringify(value);
      } catch (error) {
        if (stringIncludes(error.message, 'circular')) return '[Circular]';
        throw error;
      }
    case 'O':
      return inspect(value);
    case 'o':
      return inspect(value, { showHidden: true, depth: 4 });
    default:
      return '';
  }
}

/** The text of console.log's arguments. */
function format(args) {
  let text = '';
  let next = 0;
  if (args.length > 1 && typeof args[0] === 'string') {
    const pattern = args[0];
    let start = 0;
    next = 1;
    for (let i = 0; i < pattern.length - 1; i++) {
      if (pattern[i] !== '%') continue;
      const letter = pattern[i + 1];
      if (letter === '%') {
        text += stringSlice(pattern, start, i) + '%';
      } else if (next < args.length && stringIncludes('sdifjoOc', letter)) {
        text += stringSlice(pattern, start, i) + directive(letter, args[next++]);
      } else {
        continue;
      }
      start = i + 2;
      i++;
    }
    text += stringSlice(pattern, start);
    if (next < args.length) text += ' ';
  }
  for (let i = next; i < args.length; i++) {
    if (i > next) text += ' ';
    text += typeof args[i] === 'string' ? args[i] : inspect(args[i]);
  }
  return text;
}

/** What the reply calls the type of a value that JSON cannot say. */
function typeName(value) {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function')) return typeof value;
  const name = constructorName({ depth: 0 }, value, 0);
  return name === null ? brand(value) : name;
}

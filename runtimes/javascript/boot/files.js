// node's `fs`, a part of it: whole files, folders and what is known of them. Each operation is done when its function
// returns; the promises and callbacks only tell of it. Source: https://nodejs.org/docs/latest-v20.x/api/fs.html

const CREATE = 1;
const EXCLUSIVE = 4;
const TRUNCATE = 8;
const APPEND = 1;
const [NOT_THERE, EXISTS, IS_FOLDER, NOT_A_FOLDER, READ_ONLY, BAD_DESCRIPTOR] = [44, 20, 31, 54, 69, 8];
const [FOLDER, FILE, LINK] = [3, 4, 7];

// errno of WASI -> node's code, errno and text
const ERRNOS = {
  __proto__: null,
  2: ['EACCES', 13, 'permission denied'],
  6: ['EAGAIN', 11, 'resource temporarily unavailable'],
  8: ['EBADF', 9, 'bad file descriptor'],
  10: ['EBUSY', 16, 'resource busy or locked'],
  19: ['EDQUOT', 122, 'disk quota exceeded'],
  20: ['EEXIST', 17, 'file already exists'],
  22: ['EFBIG', 27, 'file too large'],
  25: ['EILSEQ', 84, 'illegal byte sequence'],
  28: ['EINVAL', 22, 'invalid argument'],
  29: ['EIO', 5, 'i/o error'],
  31: ['EISDIR', 21, 'illegal operation on a directory'],
  32: ['ELOOP', 40, 'too many symbolic links encountered'],
  33: ['EMFILE', 24, 'too many open files'],
  34: ['EMLINK', 31, 'too many links'],
  37: ['ENAMETOOLONG', 36, 'name too long'],
  44: ['ENOENT', 2, 'no such file or directory'],
  48: ['ENOMEM', 12, 'not enough memory'],
  51: ['ENOSPC', 28, 'no space left on device'],
  52: ['ENOSYS', 38, 'function not implemented'],
  54: ['ENOTDIR', 20, 'not a directory'],
  55: ['ENOTEMPTY', 39, 'directory not empty'],
  58: ['ENOTSUP', 95, 'operation not supported'],
  63: ['EPERM', 1, 'operation not permitted'],
  69: ['EROFS', 30, 'read-only file system'],
  70: ['ESPIPE', 29, 'invalid seek'],
  75: ['EXDEV', 18, 'cross-device link not permitted'],
  76: ['EPERM', 1, 'operation not permitted'],
};

const FLAGS = {
  __proto__: null,
  w: [CREATE | TRUNCATE, 0],
  'w+': [CREATE | TRUNCATE, 0],
  wx: [CREATE | TRUNCATE | EXCLUSIVE, 0],
  'r+': [0, 0],
  a: [CREATE, APPEND],
  'a+': [CREATE, APPEND],
  ax: [CREATE | EXCLUSIVE, APPEND],
};

function fileError(errno, syscall, path, dest) {
  const [code, number, text] = ERRNOS[errno] || ERRNOS[29];
  let message = `${code}: ${text}, ${syscall}`;
  if (path !== undefined) message += ` '${path}'`;
  if (dest !== undefined) message += ` -> '${dest}'`;
  const error = new Error(message);
  const details = { errno: -number, code, syscall, path, dest };
  for (const key in details) if (details[key] !== undefined) defineIndex(error, key, details[key]);
  return error;
}

/** What a native returned, unless it is the errno of a failure. */
function done(result, syscall, path, dest) {
  if (typeof result === 'number' && result !== 0) throw fileError(result, syscall, path, dest);
  return result;
}

/** A path as the snippet writes it. */
function pathText(given, name = 'path') {
  let text = given;
  if (given instanceof URL) {
    if (given.protocol !== 'file:') throw codedError(TypeError, 'ERR_INVALID_URL_SCHEME', 'The URL must be of scheme file');
    text = decodePath(given.pathname);
  } else if (given !== null && typeof given === 'object' && typedName(given) === 'Uint8Array') {
    text = textFrom(bytesOf(given), 'utf8');
  }
  if (typeof text !== 'string') throw invalidArgument(name, 'of type string or an instance of Buffer or URL', given);
  if (!stringIncludes(text, '\0')) return text;
  throw codedError(TypeError, 'ERR_INVALID_ARG_VALUE',
    `The argument '${name}' must be a string, Uint8Array, or URL without null bytes. Received ${inspect(text)}`);
}

const { decodeURIComponent: decodePath } = globalThis;

/** The path as WASI takes it: relative to the root. An empty one is of nothing. */
function located(text) {
  return text === '' ? '' : stringSlice(path.resolve(text), 1) || '.';
}

function optionsFrom(given, key = 'encoding') {
  if (given === null || given === undefined || typeof given === 'function') return {};
  return typeof given === 'object' ? given : { [key]: given };
}

// ---- text and bytes ----

const TEXTS = {
  __proto__: null, utf8: 'utf8', 'utf-8': 'utf8', latin1: 'latin1', binary: 'latin1', ascii: 'ascii', hex: 'hex',
  base64: 'base64', base64url: 'base64url', utf16le: 'utf16le', 'utf-16le': 'utf16le', ucs2: 'utf16le', 'ucs-2': 'utf16le',
};

function encodingOf(name) {
  const encoding = typeof name === 'string' ? TEXTS[stringLower(name)] : undefined;
  if (encoding) return encoding;
  throw codedError(TypeError, 'ERR_UNKNOWN_ENCODING', `Unknown encoding: ${name}`);
}

function fileEncoding(name) {
  const encoding = typeof name === 'string' ? TEXTS[stringLower(name)] : undefined;
  if (encoding) return encoding;
  throw codedError(TypeError, 'ERR_INVALID_ARG_VALUE', `The argument 'encoding' is invalid encoding. Received ${inspect(name)}`);
}

function binaryText(bytes, mask) {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += fromCharCode(bytes[i] & mask);
  return text;
}

function hexText(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += HEX[bytes[i]];
  return text;
}

const { atob: fromBase64, btoa: toBase64 } = globalThis;

/** The text that bytes, `[buffer, offset, length]`, are in an encoding of node's. */
function textFrom([buffer, offset, length], encoding) {
  if (encoding === 'utf8') return host.decode(buffer, offset, length, false, false)[0];
  const bytes = new Uint8Array(buffer, offset, length);
  if (encoding === 'latin1') return binaryText(bytes, 0xff);
  if (encoding === 'ascii') return binaryText(bytes, 0x7f);
  if (encoding === 'hex') return hexText(bytes);
  if (encoding === 'utf16le') {
    let text = '';
    for (let i = 0; i + 1 < bytes.length; i += 2) text += fromCharCode(bytes[i] | (bytes[i + 1] << 8));
    return text;
  }
  const text = toBase64(binaryText(bytes, 0xff));
  return encoding === 'base64' ? text : regExpReplace(/[+/=]/g, text, c => (c === '+' ? '-' : c === '/' ? '_' : ''));
}

/** The bytes of a text in an encoding of node's. */
function bytesFrom(text, encoding) {
  if (encoding === 'utf8') return utf8Bytes(text);
  if (encoding === 'hex') {
    const pairs = regExpExec(/^(?:[0-9a-fA-F]{2})*/, text)[0];
    const bytes = new Uint8Array(pairs.length / 2);
    for (let i = 0; i < bytes.length; i++) bytes[i] = +`0x${stringSlice(pairs, 2 * i, 2 * i + 2)}`;
    return bytes;
  }
  if (encoding === 'utf16le') {
    const bytes = new Uint8Array(2 * text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = charCodeAt(text, i >> 1) >> (8 * (i & 1));
    return bytes;
  }
  if (encoding === 'base64' || encoding === 'base64url') {
    const cleaned = regExpReplace(/[-_]|[^A-Za-z0-9+/]/g, text, c => (c === '-' ? '+' : c === '_' ? '/' : ''));
    text = fromBase64(cleaned.length % 4 === 1 ? stringSlice(cleaned, 0, -1) : cleaned);
  }
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = charCodeAt(text, i);
  return bytes;
}

function dataBytes(data, encoding) {
  if (typeof data === 'string') return bytesOf(bytesFrom(data, fileEncoding(encoding || 'utf8')));
  if (data !== null && typeof data === 'object' && brand(data) !== 'ArrayBuffer' && isBufferSource(data)) return bytesOf(data);
  throw invalidArgument('data', 'of type string or an instance of Buffer, TypedArray, or DataView', data);
}

// ---- what is known of a file ----

function typeTests(Class, typeOf) {
  const tests = { isFile: FILE, isDirectory: FOLDER, isSymbolicLink: LINK, isBlockDevice: 1, isCharacterDevice: 2, isFIFO: -1, isSocket: 6 };
  for (const name of objectKeys(tests)) define(Class.prototype, name, { [name]() { return typeOf(this) === tests[name]; } }[name]);
}

const MODES = { __proto__: null, [FOLDER]: 0o40755, [FILE]: 0o100644, [LINK]: 0o120777, 2: 0o20666 };

let typeOfStats;

class Stats {
  #type;
  static { typeOfStats = stats => stats.#type; }
  constructor([dev, ino, type, nlink, size, atimeMs, mtimeMs, ctimeMs]) {
    this.#type = type;
    const fields = { dev, mode: MODES[type] || 0, nlink, uid: 0, gid: 0, rdev: 0, blksize: 4096, ino, size, blocks: mathCeil(size / 512),
      atimeMs, mtimeMs, ctimeMs, birthtimeMs: ctimeMs };
    for (const key in fields) defineIndex(this, key, fields[key]);
    for (const name of ['atime', 'mtime', 'ctime', 'birthtime']) defineIndex(this, name, new Date(fields[`${name}Ms`]));
  }
}
typeTests(Stats, typeOfStats);

let typeOfEntry;

class Dirent {
  #type;
  static { typeOfEntry = entry => entry.#type; }
  constructor(name, parentPath, type) {
    this.#type = type;
    defineIndex(this, 'name', name);
    defineIndex(this, 'parentPath', parentPath);
    defineIndex(this, 'path', parentPath);
  }
}
typeTests(Dirent, typeOfEntry);

function statOf(text, follow, options) {
  const syscall = follow ? 'stat' : 'lstat';
  const fields = text === '' ? NOT_THERE : host.stat(located(text), follow);
  if (fields === NOT_THERE && optionsFrom(options).throwIfNoEntry === false) return undefined;
  return new Stats(done(fields, syscall, text));
}

// ---- folders ----

/** `[name, type]` of each entry, by name. */
function entriesOf(text) {
  const found = done(text === '' ? NOT_THERE : host.readdir(located(text)), 'scandir', text);
  const entries = [];
  for (let i = 0; i < found.length; i += 2) {
    let type = found[i + 1];
    if (type === 0) {
      const fields = host.stat(located(`${text}/${found[i]}`), false);
      type = typeof fields === 'number' ? 0 : fields[2];
    }
    push(entries, [found[i], type]);
  }
  return arraySort(entries, (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
}

function collect(text, prefix, options, into) {
  const entries = entriesOf(text);
  for (let i = 0; i < entries.length; i++) {
    const [name, type] = entries[i];
    push(into, options.withFileTypes ? new Dirent(name, text, type) : prefix + name);
    if (options.recursive && type === FOLDER) collect(path.join(text, name), `${prefix}${name}/`, options, into);
  }
  return into;
}

/** Makes a folder and those above it. The first that it made, or undefined. */
function makeFolders(text) {
  const segments = segmentsOf(path.resolve(text), true);
  let folder = '';
  let first;
  for (let i = 0; i < segments.length; i++) {
    folder += `/${segments[i]}`;
    const fields = host.stat(located(folder), true);
    if (typeof fields !== 'number') {
      if (fields[2] !== FOLDER) throw fileError(i === segments.length - 1 ? EXISTS : NOT_A_FOLDER, 'mkdir', text);
      continue;
    }
    done(fields === NOT_THERE ? host.mkdir(located(folder)) : fields, 'mkdir', text);
    first ??= path.isAbsolute(text) ? folder : path.relative('', folder);
  }
  return first;
}

function removeTree(text) {
  const entries = entriesOf(text);
  for (let i = 0; i < entries.length; i++) {
    const inner = `${text}/${entries[i][0]}`;
    if (entries[i][1] === FOLDER) removeTree(inner);
    else done(host.unlink(located(inner)), 'unlink', inner);
  }
  done(host.rmdir(located(text)), 'rmdir', text);
}

function isWritable(place) {
  const full = `/${place}/`;
  for (let i = 0; i < grants.writable.length; i++) if (stringStartsWith(full, `${grants.writable[i]}/`)) return true;
  return false;
}

// ---- the functions of `fs`; each also has the forms with a promise and with a callback ----

/** Descriptors of the snippet's own streams, by number or by name; undefined for any other file. */
function standardStream(given) {
  if (typeof given === 'number') return given;
  return given === '/dev/stdin' ? 0 : given === '/dev/stdout' ? 1 : given === '/dev/stderr' ? 2 : undefined;
}

function write(given, data, options, flag) {
  options = optionsFrom(options);
  const [oflags, fdflags] = FLAGS[options.flag || flag] || [];
  if (oflags === undefined) throw codedError(TypeError, 'ERR_INVALID_ARG_VALUE', `The argument 'flags' is invalid. Received ${inspect(options.flag)}`);
  const stream = standardStream(given);
  if (stream !== undefined && stream !== 1 && stream !== 2) throw fileError(BAD_DESCRIPTOR, 'write');
  const text = stream === undefined ? pathText(given) : undefined;
  const [buffer, offset, length] = dataBytes(data, options.encoding);
  const place = stream === undefined ? located(text) : stream;
  const result = text === '' ? NOT_THERE : host.writeFile(place, oflags, fdflags, buffer, offset, length);
  if (result < 0) throw fileError(-result, 'write');
  done(result, 'open', text);
}

function read(given) {
  const stream = standardStream(given);
  if (stream !== undefined) {
    if (stream !== 0) throw fileError(BAD_DESCRIPTOR, 'read');
    return done(host.readFile(0), 'read');
  }
  const text = pathText(given);
  const content = text === '' ? NOT_THERE : host.readFile(located(text));
  return content === IS_FOLDER ? done(content, 'read') : done(content, 'open', text);
}

const FS_CONSTANTS = { __proto__: null, F_OK: 0, X_OK: 1, W_OK: 2, R_OK: 4, COPYFILE_EXCL: 1, COPYFILE_FICLONE: 2 };

const fileFunctions = {
  readFile(given, options) {
    const { encoding } = optionsFrom(options);
    const known = encoding && encoding !== 'buffer' ? fileEncoding(encoding) : '';
    const content = read(given);
    return known ? textFrom([content, 0, bufferBytes(content)], known) : fileBytes(content);
  },
  writeFile(given, data, options) { write(given, data, options, 'w'); },
  appendFile(given, data, options) { write(given, data, options, 'a'); },
  readdir(given, options) {
    const text = pathText(given);
    return collect(text, '', optionsFrom(options), []);
  },
  stat(given, options) { return statOf(pathText(given), true, options); },
  lstat(given, options) { return statOf(pathText(given), false, options); },
  mkdir(given, options) {
    const text = pathText(given);
    if (optionsFrom(options, 'mode').recursive) return makeFolders(text);
    done(text === '' ? NOT_THERE : host.mkdir(located(text)), 'mkdir', text);
    return undefined;
  },
  rm(given, options) {
    const text = pathText(given);
    const { recursive, force } = optionsFrom(options);
    const fields = text === '' ? NOT_THERE : host.stat(located(text), false);
    if (fields === NOT_THERE && force) return;
    if (done(fields, 'lstat', text)[2] !== FOLDER) done(host.unlink(located(text)), 'rm', text);
    else if (recursive) removeTree(text);
    else throw folderError(text);
  },
  rmdir(given) {
    const text = pathText(given);
    done(text === '' ? NOT_THERE : host.rmdir(located(text)), 'rmdir', text);
  },
  unlink(given) {
    const text = pathText(given);
    done(text === '' ? NOT_THERE : host.unlink(located(text)), 'unlink', text);
  },
  rename(from, to) {
    [from, to] = [pathText(from, 'oldPath'), pathText(to, 'newPath')];
    done(from === '' || to === '' ? NOT_THERE : host.rename(located(from), located(to)), 'rename', from, to);
  },
  copyFile(from, to, mode) {
    [from, to] = [pathText(from, 'src'), pathText(to, 'dest')];
    const exclusive = typeof mode === 'number' && mode & FS_CONSTANTS.COPYFILE_EXCL ? EXCLUSIVE : 0;
    const [source, target] = [located(from), located(to)];
    if (source === target && !exclusive) statOf(from, true);
    else done(!source || !target ? NOT_THERE : host.copyFile(source, target, CREATE | TRUNCATE | exclusive), 'copyfile', from, to);
  },
  access(given, mode) {
    const text = pathText(given);
    done(text === '' ? NOT_THERE : host.stat(located(text), true), 'access', text);
    if (mode & FS_CONSTANTS.W_OK && !isWritable(located(text))) throw fileError(READ_ONLY, 'access', text);
  },
};

/** Node's error for `rm` of a folder, unlike its others. */
function folderError(text) {
  const error = new Error(`Path is a directory: rm returned EISDIR (is a directory) ${text}`);
  const details = { code: 'ERR_FS_EISDIR', errno: 21, syscall: 'rm', path: text };
  for (const key in details) defineIndex(error, key, details[key]);
  return error;
}

function exists(given) {
  try {
    return typeof host.stat(located(pathText(given)), true) !== 'number';
  } catch {
    return false;
  }
}

function withCallback(name, perform) {
  return function (...args) {
    const callback = args[args.length - 1];
    if (typeof callback !== 'function') throw invalidArgument('cb', 'of type function', callback);
    args.length--;
    let outcome;
    try {
      const value = apply(perform, undefined, args);
      outcome = name === 'exists' ? [value] : value === undefined ? [null] : [null, value];
    } catch (error) {
      outcome = [error];
    }
    setImmediateNow(callback, outcome);
  };
}

const promises = { constants: FS_CONSTANTS };
const fs = { constants: FS_CONSTANTS, ...FS_CONSTANTS, Stats, Dirent, promises, existsSync: exists, exists: withCallback('exists', exists) };
define(fs.existsSync, 'name', 'existsSync');
define(fs.exists, 'name', 'exists');
for (const name of objectKeys(fileFunctions)) {
  const perform = fileFunctions[name];
  const [synchronous, promised, called] =
    [(...args) => apply(perform, undefined, args), async (...args) => apply(perform, undefined, args), withCallback(name, perform)];
  define(synchronous, 'name', `${name}Sync`);
  define(promised, 'name', name);
  define(called, 'name', name);
  [fs[`${name}Sync`], promises[name], fs[name]] = [synchronous, promised, called];
}

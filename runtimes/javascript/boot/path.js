// node's `path`, the POSIX one: the only one there is here. Source: https://nodejs.org/docs/latest-v20.x/api/path.html

const WORKING_FOLDER = '/workspace';

function requireString(value, name) {
  if (typeof value !== 'string') throw invalidArgument(name, 'of type string', value);
  return value;
}

/** The segments of a path without `.`, and without `..` where there is something for it to take away. */
function segmentsOf(path, absolute) {
  const segments = [];
  const parts = stringSplit(path, '/');
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i];
    if (part === '' || part === '.') continue;
    if (part !== '..') push(segments, part);
    else if (segments.length && segments[segments.length - 1] !== '..') segments.length--;
    else if (!absolute) push(segments, '..');
  }
  return segments;
}

const path = {
  sep: '/',
  delimiter: ':',
  normalize(given) {
    if (requireString(given, 'path') === '') return '.';
    const absolute = path.isAbsolute(given);
    let text = arrayJoin(segmentsOf(given, absolute), '/');
    if (text === '' && !absolute) text = '.';
    if (text !== '' && stringEndsWith(given, '/')) text += '/';
    return absolute ? `/${text}` : text;
  },
  isAbsolute(given) { return stringStartsWith(requireString(given, 'path'), '/'); },
  join(...parts) {
    let text = '';
    for (let i = 0; i < parts.length; i++) {
      if (requireString(parts[i], 'path') !== '') text += (text && '/') + parts[i];
    }
    return path.normalize(text);
  },
  resolve(...parts) {
    let text = '';
    for (let i = parts.length - 1; i >= 0 && !stringStartsWith(text, '/'); i--) {
      if (requireString(parts[i], `paths[${i}]`) !== '') text = text ? `${parts[i]}/${text}` : parts[i];
    }
    if (!stringStartsWith(text, '/')) text = `${WORKING_FOLDER}/${text}`;
    return `/${arrayJoin(segmentsOf(text, true), '/')}`;
  },
  relative(from, to) {
    const start = segmentsOf(path.resolve(requireString(from, 'from')), true);
    const end = segmentsOf(path.resolve(requireString(to, 'to')), true);
    let common = 0;
    while (common < start.length && common < end.length && start[common] === end[common]) common++;
    const steps = [];
    for (let i = common; i < start.length; i++) push(steps, '..');
    for (let i = common; i < end.length; i++) push(steps, end[i]);
    return arrayJoin(steps, '/');
  },
  dirname(given) {
    const text = regExpReplace(/\/+$/, requireString(given, 'path'), '');
    const at = stringLastIndexOf(text, '/');
    if (at < 0) return stringStartsWith(given, '/') ? '/' : '.';
    return stringSlice(text, 0, at) || '/';
  },
  basename(given, suffix) {
    const text = regExpReplace(/\/+$/, requireString(given, 'path'), '');
    const name = stringSlice(text, stringLastIndexOf(text, '/') + 1);
    if (suffix === undefined || !stringEndsWith(name, requireString(suffix, 'suffix'))) return name;
    if (name === suffix) return given === suffix ? '' : name;
    return stringSlice(name, 0, name.length - suffix.length);
  },
  extname(given) {
    const name = path.basename(given);
    const at = stringLastIndexOf(name, '.');
    return at <= 0 || name === '..' ? '' : stringSlice(name, at);
  },
  parse(given) {
    const root = path.isAbsolute(given) ? '/' : '';
    const base = path.basename(given);
    const ext = path.extname(given);
    const dir = path.dirname(given);
    const name = stringSlice(base, 0, base.length - ext.length);
    return { root, dir: dir === '.' && !stringStartsWith(given, '.') ? '' : dir, base, ext, name };
  },
  format(parts) {
    if (parts === null || typeof parts !== 'object') throw invalidArgument('pathObject', 'of type object', parts);
    const dir = parts.dir || parts.root;
    const ext = parts.ext ? (stringStartsWith(parts.ext, '.') ? '' : '.') + parts.ext : '';
    const base = parts.base || `${parts.name || ''}${ext}`;
    if (!dir) return base;
    return dir === parts.root ? dir + base : `${dir}/${base}`;
  },
  toNamespacedPath(given) { return given; },
};
path.posix = path;

// Modules: the few of node's that are here, for `require`, `import()` and the `import` statements a snippet begins with.

const MODULES = {
  __proto__: null,
  buffer: { Buffer, Blob, File, atob: globalThis.atob, btoa: globalThis.btoa },
  fs,
  'fs/promises': promises,
  path,
  'path/posix': path,
};

/** The module of a name, with or without `node:`; undefined for one that is not here. C asks it for `import()`. */
function moduleOf(id) {
  return MODULES[stringStartsWith(id, 'node:') ? stringSlice(id, 5) : id];
}

function require(id) {
  if (typeof id !== 'string') throw invalidArgument('id', 'of type string', id);
  const known = moduleOf(id);
  if (known) return known;
  const error = codedError(Error, 'MODULE_NOT_FOUND', `Cannot find module '${id}'`);
  weakMapSet(needs, error, `needs the module '${id}', which this runtime does not have`);
  throw error;
}

// ---- import statements ----

const BLANK = /(?:[\s;]|\/\/[^\n]*|\/\*[^]*?\*\/|(["'])use strict\1)*/y;
const NAME = '[\\p{ID_Start}$_][\\p{ID_Continue}$]*';
const IMPORT = new RegExp(
  `import(?:\\s*(?:(?<main>${NAME})\\s*,?\\s*)?(?:\\*\\s*as\\s+(?<all>${NAME})|\\{(?<some>[^{}]*)\\})?\\s*from)?\\s*(?<from>"[^"\\n]*"|'[^'\\n]*')`,
  'uy',
);
const RENAMED = new RegExp(`(${NAME})\\s+as\\s+(${NAME})`, 'ug');

/**
 * A script has no import statements, so those that a snippet begins with become `await import()`, each on its own lines.
 * Undefined when it begins with none. C asks when the code did not compile.
 */
function withoutImports(code) {
  let text = '';
  for (let at = 0; ;) {
    BLANK.lastIndex = at;
    const blank = regExpExec(BLANK, code)[0];
    IMPORT.lastIndex = at + blank.length;
    const found = regExpExec(IMPORT, code);
    if (!found) return text === '' ? undefined : text + stringSlice(code, at);
    text += blank + declarationFor(found.groups);
    at = IMPORT.lastIndex;
  }
}

function declarationFor({ main, all, some, from }) {
  const module = `await import(${from})`;
  if (all) return `const ${all} = ${module}${main ? `, { default: ${main} } = ${all}` : ''};`;
  let names = main ? `default: ${main}` : '';
  if (some !== undefined) names += (names && ', ') + regExpReplace(RENAMED, some, '$1: $2');
  return names ? `const { ${names} } = ${module};` : `${module};`;
}

expose({ require });

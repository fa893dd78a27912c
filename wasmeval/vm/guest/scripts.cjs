// Scripts: the snippet as node's prompt would take it, so that it has a value and may await at its top level.
'use strict';

const vm = require('node:vm');
const acorn = require('internal/deps/acorn/acorn/dist/acorn');
const { processTopLevelAwait } = require('internal/repl/await');

const PARSED = { ecmaVersion: 'latest', allowAwaitOutsideFunction: true };
const DECLARES = /\b(?:let|const|var)\b/;
const IMPORTS = /\bimport\b/;
const CALL = '})()';
const ASYNC = '(async () => {';
// Enough to know a place by, short enough to end before what the wrapping has put behind it.
const SEEN_CHARACTERS = 24;

/** Where `import()` begins to look: the folder the process is in, as for node's prompt. */
const importing = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER ?? importFromFolder;

async function importFromFolder(name, script, attributes) {
  const { pathToFileURL } = require('node:url');
  // Before node 20.12 only its own prompt can say from where.
  const { esmLoader } = require('internal/process/esm_loader');
  return await esmLoader.import(name, pathToFileURL(`${process.cwd()}/snippet`).href, attributes ?? {});
}

/**
 * `start` runs the snippet; with `boxed` what it returns is a promise of `{ value }`. `columnOf` says where a place in
 * what runs is in the snippet. A script first, and with top-level await only when it is none. Throws a SyntaxError that
 * is placed in `file`.
 */
function compile(code, file) {
  const named = withLastName(code);
  try {
    return { start: runner(named, file, 0), boxed: false, columnOf: (line, column) => column };
  } catch (error) {
    const wrapped = withTopLevelAwait(named === code ? withCompletion(code) : named);
    if (wrapped !== null) {
      const before = wrapped.indexOf(ASYNC) + ASYNC.length + 1;
      try {
        return { start: runner(wrapped, file, -before), boxed: true, columnOf: columns(code, wrapped, before) };
      } catch {
        // The first error is about the snippet as it was written.
      }
    }
    throw placed(error, file);
  }
}

function runner(code, filename, columnOffset) {
  const script = new vm.Script(code, { filename, columnOffset, importModuleDynamically: importing });
  // Without `displayErrors`: it would put the place of the throw before that of the error.
  return () => script.runInThisContext({ displayErrors: false });
}

/**
 * Columns of `code` for those of `wrapped`, which has the same lines with more text in them: what stands there says it.
 * 0 for the place where the wrapping itself is called.
 */
function columns(code, wrapped, before) {
  const lines = code.split('\n');
  const wrappedLines = wrapped.split('\n');
  return (line, column) => {
    const own = lines[line - 1];
    const at = column - 1 + (line === 1 ? before : 0);
    if (line >= wrappedLines.length && at >= wrappedLines.at(-1).lastIndexOf(CALL)) return 0;
    const text = wrappedLines[line - 1]?.slice(at, at + SEEN_CHARACTERS);
    if (!own || !text) return column;
    for (let length = text.length; length > 0; length -= 1) {
      const found = own.lastIndexOf(text.slice(0, length), column - 1);
      if (found >= 0) return found + 1;
    }
    return column;
  };
}

/** `code` with the name at its end when its last statement declares one name and gives it a value. */
function withLastName(code) {
  if (!DECLARES.test(code)) return code;
  let last;
  try {
    last = acorn.parse(code, PARSED).body.at(-1);
  } catch {
    try {
      last = acorn.parse(code, { ...PARSED, sourceType: 'module' }).body.at(-1);
    } catch {
      return code;
    }
  }
  const [declared, ...others] = last?.type === 'VariableDeclaration' ? last.declarations : [];
  const named = declared?.id.type === 'Identifier' && declared.init && !others.length;
  return named ? `${code}\n;${declared.id.name}` : code;
}

/**
 * `code` that keeps its completion value where node's prompt has none: when it ends in a loop, a condition, a `try`, a
 * declaration. Every statement that is an expression outside of functions assigns its value to COMPLETION.
 */
function withCompletion(code) {
  let tree;
  try {
    tree = acorn.parse(code, { ...PARSED, sourceType: IMPORTS.test(code) ? 'module' : 'script' });
  } catch {
    return code;
  }
  const last = tree.body.at(-1);
  if (!last || last.type === 'ExpressionStatement' || last.type === 'ImportDeclaration') return code;
  const found = [];
  for (const node of tree.body) {
    if (COMPOUND.test(node.type)) found.push([node.start, `${COMPLETION} = undefined; `]);
    collectExpressions(node, found);
  }
  let rest = code;
  for (const [at, text] of found.sort(([a], [b]) => b - a)) rest = rest.slice(0, at) + text + rest.slice(at);
  return `${rest}\n;${COMPLETION}`;
}

const COMPLETION = '__completion';
const COMPOUND = /^(?:If|Try|For|ForIn|ForOf|While|DoWhile|Switch|Block|With|Labeled)Statement$/;
const FUNCTION = /Function|Class/;

function collectExpressions(node, found) {
  if (node === null || typeof node !== 'object' || FUNCTION.test(node.type)) return;
  if (node.type === 'ExpressionStatement' && node.directive === undefined) {
    const { start, end } = node.expression;
    found.push([start, `${COMPLETION} = (`], [end, ')']);
    return;
  }
  for (const child of Object.values(node)) {
    if (Array.isArray(child)) for (const each of child) collectExpressions(each, found);
    else collectExpressions(child, found);
  }
}

function withTopLevelAwait(code) {
  try {
    return processTopLevelAwait(IMPORTS.test(code) ? withoutImports(code) : code);
  } catch {
    return null;
  }
}

/** `code` with `await import()` in the place of its import statements, each on the lines it had. */
function withoutImports(code) {
  let tree;
  try {
    tree = acorn.parse(code, { ...PARSED, sourceType: 'module' });
  } catch {
    return code;
  }
  let rest = code;
  for (const node of tree.body.reverse()) {
    if (node.type !== 'ImportDeclaration') continue;
    const lines = '\n'.repeat(code.slice(node.start, node.end).split('\n').length - 1);
    rest = `${rest.slice(0, node.start)}${awaited(node)};${lines}${rest.slice(node.end)}`;
  }
  return rest;
}

function awaited({ source, specifiers }) {
  const whole = specifiers.find(each => each.type === 'ImportNamespaceSpecifier');
  const members = specifiers.filter(each => each !== whole).map(({ type, imported, local }) => {
    const name = type === 'ImportDefaultSpecifier' ? 'default' : imported.name ?? imported.value;
    return `${JSON.stringify(name)}: ${local.name}`;
  });
  const found = `await import(${source.raw})`;
  if (!specifiers.length) return found;
  if (!whole) return `const { ${members.join(', ')} } = ${found}`;
  const others = members.length ? `, { ${members.join(', ')} } = ${whole.local.name}` : '';
  return `const ${whole.local.name} = ${found}${others}`;
}

/** Gives a SyntaxError a frame where it was found. The compiler has put that above its text, with spaces up to it. */
function placed(error, file) {
  const found = /^[^\n]*:(\d+)\n[^\n]*\n( *)/.exec(`${error.stack}`);
  if (found && `${error.stack}`.startsWith(file)) {
    const stack = `${error.name}: ${error.message}\n    at ${file}:${found[1]}:${found[2].length + 1}`;
    Object.defineProperty(error, 'stack', { value: stack, writable: true, configurable: true });
  }
  return error;
}

module.exports = { compile, COMPLETION };

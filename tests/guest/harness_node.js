// Runs one snippet in the real node and reports what a Result has to say of it.
//
// Usage: node --expose-internals harness_node.js REQUEST REPLY, two files of JSON: {code, inputs} and the fields
// of a reply of runtimes/abi.md. What the snippet prints goes to this process's own stdout and stderr. One process
// runs one snippet; the reply is written when nothing more is pending.
"use strict";

const fs = require("node:fs");
const util = require("node:util");
const vm = require("node:vm");
const acorn = require("internal/deps/acorn/acorn/dist/acorn");
// The transform by which node's own prompt gives top-level await a value.
const { processTopLevelAwait } = require("internal/repl/await");

const FILE = "<snippet>";
const MAX_DEPTH = 256;

class NotJson extends Error {}

function main() {
  const [requestPath, replyPath] = process.argv.slice(2);
  const request = JSON.parse(fs.readFileSync(requestPath, "utf8"));
  Object.defineProperty(globalThis, "require", { value: require, writable: true, configurable: true });
  Object.assign(globalThis, request.inputs);
  let reply = null;
  process.on("uncaughtException", (error) => {
    reply = describeError(error, request.code);
    finish();
  });
  process.on("beforeExit", finish);
  function finish() {
    fs.writeFileSync(replyPath, JSON.stringify(reply));
    process.exit();
  }
  evaluate(withLastName(request.code)).then(
    (value) => { reply = describeValue(value); },
    (error) => { reply = describeError(error, request.code); },
  );
}

// `code` with the name at its end when its last statement declares one name and gives it a value: the contract has a
// value for that, where the language has none.
function withLastName(code) {
  let last;
  try {
    last = acorn.parse(code, { ecmaVersion: "latest", allowAwaitOutsideFunction: true }).body.at(-1);
  } catch {
    return code;
  }
  const [declared, ...others] = last?.type === "VariableDeclaration" ? last.declarations : [];
  const named = declared?.id.type === "Identifier" && declared.init && !others.length;
  return named ? `${code}\n;${declared.id.name}` : code;
}

// The completion value of `code`, awaited; a script first, and with top-level await only when it is none.
async function evaluate(code) {
  // Without `displayErrors`: it would put the place of the throw before that of the error.
  const options = { filename: FILE, displayErrors: false };
  let script;
  try {
    script = new vm.Script(code, { filename: FILE });
  } catch (error) {
    const wrapped = withTopLevelAwait(code);
    if (wrapped === null) throw error;
    return (await vm.runInThisContext(wrapped, options))?.value;
  }
  return await script.runInThisContext(options);
}

function withTopLevelAwait(code) {
  try {
    return processTopLevelAwait(code);
  } catch {
    return null;
  }
}

function describeValue(value) {
  try {
    return { status: "ok", value: toJson(value, 0), value_is_json: true };
  } catch {
    const text = JSON.stringify({ repr: util.inspect(value), type: typeName(value) });
    return { status: "ok", value: text, value_is_json: false };
  }
}

// JSON text as JSON.stringify gives it, but with every number and BigInt, and strict (it throws) on what
// JSON.stringify would leave out or flatten: functions, symbols, instances of classes, cycles. As there, a toJSON or
// getter runs the snippet's code; what it throws makes the value no JSON.
function toJson(value, depth) {
  switch (typeof value) {
    case "undefined": return "null";
    case "number": return Object.is(value, -0) ? "-0.0" : String(value);
    case "bigint": case "boolean": return String(value);
    case "string": return JSON.stringify(value);
    case "object": return value === null ? "null" : compoundToJson(value, depth);
    default: throw new NotJson();
  }
}

function compoundToJson(value, depth) {
  if (depth === MAX_DEPTH) throw new NotJson();
  if (typeof value.toJSON === "function") return toJson(value.toJSON(), depth + 1);
  if (Array.isArray(value)) return `[${Array.from(value, (item) => toJson(item, depth + 1)).join(",")}]`;
  const plain = [Object.prototype, null].includes(Object.getPrototypeOf(value));
  const symbols = Object.getOwnPropertySymbols(value).some((key) => Object.prototype.propertyIsEnumerable.call(value, key));
  if (!plain || symbols) throw new NotJson();
  const members = Object.keys(value).map((name) => [name, value[name]]).filter(([, item]) => item !== undefined);
  return `{${members.map(([name, item]) => `${JSON.stringify(name)}:${toJson(item, depth + 1)}`).join(",")}}`;
}

function typeName(value) {
  if (typeof value === "symbol") return "symbol";
  return value.constructor?.name || "Object";
}

// `message` is left out where it is the engine's own text, which another engine need not share.
function describeError(error, code) {
  if (!(error instanceof Error)) {
    const message = typeof error === "string" ? error : util.inspect(error);
    return { status: "error", error: { type: "Uncaught", message, line: null } };
  }
  const message = code.includes(error.message) ? error.message : undefined;
  return { status: "error", error: { type: error.name, message, line: lineOf(error.stack) } };
}

function lineOf(stack) {
  const place = /<snippet>:(\d+)/.exec(stack);
  return place === null ? null : Number(place[1]);
}

main();

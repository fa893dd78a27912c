// node's vm: runs a snippet in a fresh context of one process (no isolation worth the name) and times it.
// See bench/companion.py for the conversation.
"use strict";
const vm = require("node:vm");
const os = require("node:os");
const readline = require("node:readline");

os.setPriority(5); // as a worker does

const kept = [];

function answer(question) {
  if (question.version) return { version: process.version };
  const seconds = [];
  let value = null;
  for (let i = 0; i < question.count; i++) {
    const start = process.hrtime.bigint();
    const context = vm.createContext({});
    value = vm.runInContext(question.code, context);
    seconds.push(Number(process.hrtime.bigint() - start) / 1e9);
    if (question.keep) kept.push(context);
  }
  return { seconds, value };
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  let reply;
  try {
    reply = answer(JSON.parse(line));
  } catch (error) {
    reply = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
});

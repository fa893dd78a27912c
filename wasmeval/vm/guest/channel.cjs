// The channel: frames between this process and the agent, on descriptor 3.
'use strict';

const fs = require('node:fs');

const CHANNEL = 3;
const HEAD_BYTES = 5;
// As it was before there was a snippet.
const exit = process.reallyExit.bind(process);

function readExactly(length) {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length;) {
    const count = fs.readSync(CHANNEL, bytes, at, length - at, null);
    if (count === 0) exit(0); // the agent is gone
    at += count;
  }
  return bytes;
}

function receive() {
  const head = readExactly(HEAD_BYTES);
  return [String.fromCharCode(head[4]), readExactly(head.readUInt32LE(0))];
}

function send(kind, ...parts) {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(parts.reduce((sum, part) => sum + part.length, 0), 0);
  head[4] = kind.charCodeAt(0);
  const bytes = Buffer.concat([head, ...parts]);
  for (let at = 0; at < bytes.length;) at += fs.writeSync(CHANNEL, bytes, at);
}

/** [result, answer] of a host operation; the answer is a buffer. */
function ask(operation, body = Buffer.alloc(0)) {
  send('H', Buffer.from([operation]), body);
  for (;;) {
    const [kind, payload] = receive();
    if (kind === 'A') return [payload.readInt32LE(0), payload.subarray(4)];
  }
}

module.exports = { receive, send, ask };

// The way to the network, when the evaluation has one: through the proxy that listens in the guest.
'use strict';

const PROXY = process.env.WASMEVAL_PROXY ?? 'http://127.0.0.1:3128';
delete process.env.WASMEVAL_PROXY;

const LOCAL = ['localhost', '127.0.0.1', '::1'];
const SETTINGS = {
  http_proxy: PROXY, https_proxy: PROXY, HTTP_PROXY: PROXY, HTTPS_PROXY: PROXY,
  no_proxy: `${LOCAL}`, NO_PROXY: `${LOCAL}`,
};
// undici keeps its dispatcher under this name, for all copies of itself. Source: undici, lib/global.js
const DISPATCHER = Symbol.for('undici.globalDispatcher.1');

let direct = null;

/** Sets or takes back the settings that programs look for, and sends `fetch` the same way. */
function allow(allowed) {
  for (const [name, value] of Object.entries(SETTINGS)) {
    if (allowed) process.env[name] ??= value;
    else if (process.env[name] === value) delete process.env[name];
  }
  if (allowed && direct === null) {
    void globalThis.fetch; // makes the dispatcher
    direct = globalThis[DISPATCHER] ?? null;
    if (direct !== null) globalThis[DISPATCHER] = new Proxied(direct);
  } else if (!allowed && direct !== null) {
    globalThis[DISPATCHER] = direct;
    direct = null;
  }
}

/** An undici dispatcher: `http:` requests go to the proxy as they are, `https:` ones through a tunnel that it opens. */
class Proxied {
  constructor(dispatcher) {
    const Agent = dispatcher.constructor;
    this.direct = dispatcher;
    this.plain = new Agent();
    this.tunnels = new Agent({ connect: tunnel });
  }

  dispatch(options, handler) {
    const { protocol, hostname, host, origin } = new URL(options.origin);
    if (LOCAL.includes(hostname.replace(/^\[|\]$/g, ''))) return this.direct.dispatch(options, handler);
    if (protocol === 'https:') return this.tunnels.dispatch(options, handler);
    const headers = withHost(options.headers, host);
    return this.plain.dispatch({ ...options, origin: PROXY, path: origin + options.path, headers }, handler);
  }

  close(...rest) { return this.direct.close(...rest); }
  destroy(...rest) { return this.direct.destroy(...rest); }
}

/** Headers are a flat list of names and values, or an object. */
function withHost(headers, host) {
  if (Array.isArray(headers)) return [...headers, 'host', host];
  return { ...headers, host };
}

function tunnel({ hostname, port, servername }, callback) {
  const http = require('node:http');
  const tls = require('node:tls');
  const { hostname: proxy, port: proxyPort } = new URL(PROXY);
  const target = `${hostname}:${port || 443}`;
  const headers = { host: target };
  const request = http.request({ host: proxy, port: proxyPort, method: 'CONNECT', path: target, headers, agent: false });
  request.once('connect', ({ statusCode, statusMessage }, socket) => {
    if (statusCode !== 200) {
      socket.destroy();
      callback(new Error(`the proxy refused ${target}: ${statusCode} ${statusMessage}`));
      return;
    }
    const secure = tls.connect({ socket, servername: servername || hostname, ALPNProtocols: ['http/1.1'] });
    secure.once('secureConnect', () => callback(null, secure));
    secure.once('error', callback);
  });
  request.once('error', callback);
  request.end();
}

module.exports = { allow };

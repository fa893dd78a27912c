// Event, EventTarget, AbortController and AbortSignal. Source: https://dom.spec.whatwg.org/

const INTERNAL = Symbol('internal');

class Event {
  #type;
  #options;
  #stopped = false;
  #prevented = false;
  #created = host.now();
  constructor(type, options) {
    if (arguments.length === 0) throw codedError(TypeError, 'ERR_MISSING_ARGS', 'The "type" argument must be specified');
    this.#type = `${type}`;
    this.#options = options || {};
    define(this, INTERNAL, { target: null, immediate: false });
  }
  get type() { return this.#type; }
  get target() { return this[INTERNAL].target; }
  get currentTarget() { return this[INTERNAL].target; }
  get srcElement() { return this[INTERNAL].target; }
  get bubbles() { return !!this.#options.bubbles; }
  get cancelable() { return !!this.#options.cancelable; }
  get composed() { return !!this.#options.composed; }
  get defaultPrevented() { return this.#prevented; }
  get returnValue() { return !this.#prevented; }
  get cancelBubble() { return this.#stopped; }
  get eventPhase() { return this[INTERNAL].target ? 2 : 0; }
  get timeStamp() { return this.#created; }
  get isTrusted() { return false; }
  composedPath() { return this[INTERNAL].target ? [this[INTERNAL].target] : []; }
  preventDefault() {
    if (this.cancelable) this.#prevented = true;
  }
  stopPropagation() { this.#stopped = true; }
  stopImmediatePropagation() {
    this.#stopped = true;
    this[INTERNAL].immediate = true;
  }
}

class CustomEvent extends Event {
  #detail;
  constructor(type, options) {
    super(type, options);
    this.#detail = options && options.detail !== undefined ? options.detail : null;
  }
  get detail() { return this.#detail; }
}

class EventTarget {
  #listeners = new Map();
  addEventListener(type, callback, options) {
    if (callback === null || callback === undefined) return;
    const once = !!(options && typeof options === 'object' && options.once);
    const signal = options && typeof options === 'object' ? options.signal : undefined;
    const capture = typeof options === 'boolean' ? options : !!(options && options.capture);
    if (signal && signal.aborted) return;
    type = `${type}`;
    let list = mapGet(this.#listeners, type);
    if (!list) mapSet(this.#listeners, type, (list = []));
    for (let i = 0; i < list.length; i++) if (list[i].callback === callback && list[i].capture === capture) return;
    push(list, { callback, once, capture, removed: false });
    if (signal) signal.addEventListener('abort', () => this.removeEventListener(type, callback, options), { once: true });
  }
  removeEventListener(type, callback, options) {
    const capture = typeof options === 'boolean' ? options : !!(options && options.capture);
    const list = mapGet(this.#listeners, `${type}`) || [];
    for (let i = 0; i < list.length; i++) {
      if (list[i].callback === callback && list[i].capture === capture) {
        list[i].removed = true;
        arraySplice(list, i, 1);
        return;
      }
    }
  }
  dispatchEvent(event) {
    if (!(event instanceof Event)) throw invalidArgument('event', 'an instance of Event', event);
    const state = event[INTERNAL];
    state.target = this;
    state.immediate = false;
    const own = this[`on${event.type}`];
    const list = arraySlice(mapGet(this.#listeners, event.type) || []);
    if (typeof own === 'function') push(list, { callback: own, once: false, removed: false });
    for (let i = 0; i < list.length && !state.immediate; i++) {
      const listener = list[i];
      if (listener.removed) continue;
      if (listener.once) this.removeEventListener(event.type, listener.callback, listener.capture);
      try {
        if (typeof listener.callback === 'function') apply(listener.callback, this, [event]);
        else listener.callback.handleEvent(event);
      } catch (error) {
        // uncaught, as in node: the listeners after it still run
        queueJob(() => { throw error; });
      }
    }
    return !event.defaultPrevented;
  }
}

const { queueMicrotask: queueJob } = globalThis;

class AbortSignal extends EventTarget {
  #reason = undefined;
  #aborted = false;
  constructor(key) {
    if (key !== INTERNAL) throw codedError(TypeError, 'ERR_ILLEGAL_CONSTRUCTOR', 'Illegal constructor');
    super();
    define(this, INTERNAL, reason => {
      if (this.#aborted) return;
      this.#aborted = true;
      this.#reason = reason === undefined ? new DOMException('This operation was aborted', 'AbortError') : reason;
      this.dispatchEvent(new Event('abort'));
    });
    define(this, 'onabort', null);
  }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
  static abort(reason) {
    const signal = new AbortSignal(INTERNAL);
    signal[INTERNAL](reason);
    return signal;
  }
  static timeout(delay) {
    const signal = new AbortSignal(INTERNAL);
    const expire = () =>
      signal[INTERNAL](new DOMException('The operation was aborted due to timeout', 'TimeoutError'));
    addTimer(expire, delay, [], false).unref(); // as in node: it keeps nothing waiting
    return signal;
  }
  static any(signals) {
    const signal = new AbortSignal(INTERNAL);
    for (const source of signals) {
      if (source.aborted) {
        signal[INTERNAL](source.reason);
        break;
      }
      source.addEventListener('abort', () => signal[INTERNAL](source.reason), { once: true });
    }
    return signal;
  }
}

class AbortController {
  #signal = new AbortSignal(INTERNAL);
  get signal() { return this.#signal; }
  abort(reason) { this.#signal[INTERNAL](reason); }
}

for (const Class of [Event, CustomEvent, EventTarget, AbortSignal, AbortController]) tagged(Class);
expose({ Event, CustomEvent, EventTarget, AbortSignal, AbortController });

// Timers: a binary heap ordered by due time and then by age, and the immediates. C calls runDue when `host.arm`'s time
// has come; nothing here runs for a snippet that sets no timer.

const timers = [];
let immediates = [];
let timerCount = 0;

class Timeout {
  constructor(callback, delay, args, repeat) {
    this._idleTimeout = delay;
    this._onTimeout = callback;
    this._repeat = repeat ? delay : null;
    define(this, '_args', args);
    define(this, '_id', ++timerCount);
    define(this, '_due', 0);
    define(this, '_at', -1);
    define(this, '_holds', true);
  }
  ref() { return holdBy(this, true); }
  unref() { return holdBy(this, false); }
  hasRef() { return this._holds; }
  refresh() {
    if (this._at >= 0) removeTimer(this);
    if (this._onTimeout) insertTimer(this);
    return this;
  }
  close() {
    cancelTimer(this);
    return this;
  }
  [symbolToPrimitive]() { return this._id; }
}

class Immediate {
  constructor(callback, args) {
    this._onImmediate = callback;
    define(this, '_args', args);
  }
  ref() { return this; }
  unref() { return this; }
  hasRef() { return true; }
}

// How many of the timers that are set keep the snippet from being over.
let holding = 0;

function holdBy(timer, holds) {
  if (timer._at >= 0 && timer._holds !== holds) holding += holds ? 1 : -1;
  timer._holds = holds;
  rearm();
  return timer;
}

function before(a, b) {
  return a._due < b._due || (a._due === b._due && a._order < b._order);
}

function place(timer, at) {
  defineIndex(timers, at, timer);
  timer._at = at;
}

function siftUp(timer, at) {
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!before(timer, timers[parent])) break;
    place(timers[parent], at);
    at = parent;
  }
  place(timer, at);
}

function siftDown(timer, at) {
  const count = timers.length;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && before(timers[child + 1], timers[child])) child++;
    if (!before(timers[child], timer)) break;
    place(timers[child], at);
    at = child;
  }
  place(timer, at);
}

let timerOrder = 0;

function insertTimer(timer) {
  // a delay of 1 ms, the least there is, is due in the next turn however little time has passed
  timer._due = mathFloor(host.now()) + (timer._idleTimeout <= 1 ? 0 : timer._idleTimeout);
  define(timer, '_order', timerOrder++);
  siftUp(timer, timers.length);
  if (timer._holds) holding++;
  rearm();
}

function removeTimer(timer) {
  const at = timer._at;
  const last = timers[timers.length - 1];
  timers.length--;
  timer._at = -1;
  if (timer._holds) holding--;
  if (last !== timer) {
    siftUp(last, at);
    siftDown(last, last._at);
  }
  rearm();
}

function cancelTimer(timer) {
  if (timer._at >= 0) removeTimer(timer);
  timer._onTimeout = null;
  timer._repeat = null;
}

function rearm() {
  const now = immediates.length > 0 || dueQueue.length > 0;
  host.arm(now ? 0 : timers.length ? timers[0]._due : -1, now || holding > 0);
}

function addTimer(callback, delay, args, repeat) {
  if (typeof callback !== 'function') throw invalidArgument('callback', 'of type function', callback);
  delay = +delay;
  if (!(delay >= 1 && delay <= 2147483647)) delay = 1;
  const timer = new Timeout(callback, mathFloor(delay), args, repeat);
  insertTimer(timer);
  return timer;
}

function clearTimer(timer) {
  if (timer instanceof Timeout) cancelTimer(timer);
  else if (typeof timer === 'number' || typeof timer === 'string') {
    for (let i = 0; i < timers.length; i++) {
      if (timers[i]._id === +timer) {
        cancelTimer(timers[i]);
        return;
      }
    }
  }
}

let dueQueue = [];

/** Runs one callback that is due; C drains the microtasks between two calls. */
function runDue() {
  if (!dueQueue.length) {
    const now = mathFloor(host.now());
    while (timers.length && timers[0]._due <= now) {
      const timer = timers[0];
      removeTimer(timer);
      defineIndex(dueQueue, dueQueue.length, timer);
    }
    for (let i = 0; i < immediates.length; i++) defineIndex(dueQueue, dueQueue.length, immediates[i]);
    immediates = [];
  }
  const next = dueQueue[0];
  arrayShift(dueQueue);
  try {
    if (next instanceof Timeout) fireTimer(next);
    else if (next && next._onImmediate) apply(next._onImmediate, undefined, next._args);
  } finally {
    rearm();
  }
}

function fireTimer(timer) {
  if (!timer._onTimeout) return;
  try {
    apply(timer._onTimeout, timer, timer._args);
  } finally {
    if (timer._repeat !== null && timer._at < 0) {
      timer._idleTimeout = timer._repeat;
      insertTimer(timer);
    }
  }
}

function setImmediateNow(callback, args) {
  if (typeof callback !== 'function') throw invalidArgument('callback', 'of type function', callback);
  const immediate = new Immediate(callback, args);
  defineIndex(immediates, immediates.length, immediate);
  rearm();
  return immediate;
}

expose({
  setTimeout(callback, delay, ...args) { return addTimer(callback, delay, args, false); },
  setInterval(callback, delay, ...args) { return addTimer(callback, delay, args, true); },
  setImmediate(callback, ...args) { return setImmediateNow(callback, args); },
  clearTimeout(timer) { clearTimer(timer); },
  clearInterval(timer) { clearTimer(timer); },
  clearImmediate(immediate) {
    if (immediate instanceof Immediate) immediate._onImmediate = null;
  },
});

// SPDX-License-Identifier: MIT
// One connection: requests go out, replies meet the oldest request, and whatever is odd ends it for good.
import net from 'node:net';
import { FATAL, FEATURE_PUSH, FLAG, MAX_IN_FLIGHT, MAX_STATS_TEXT, CEILING_MAX_VALUE, OP, PUSH, REPLY } from './wire.mjs';
import { Violation, bytes, decode, encode, fits, frameSize, isPush, u32 } from './wire.mjs';

/**
 * A request that failed. `outcome` says what became of it: 'retry', not executed, it may succeed later; 'permanent', not
 * executed, it will fail again; 'unknown', it may have been executed. `code` is the server's, if it named one.
 */
export class CrabError extends Error {
  constructor(message, outcome, code) {
    super(code === undefined ? message : `${message} (0x${code.toString(16).padStart(4, '0')})`);
    this.name = 'CrabError';
    this.outcome = outcome;
    this.code = code;
  }
}

// The class of a code, also of one that is not known [P-8.1.1].
const outcomeOf = (code) => ({ 1: 'retry', 2: 'permanent' })[code >> 8] ?? 'unknown';

export class Connection {
  #socket;
  #options;
  #waiting = []; // requests that are not sent yet
  #inFlight = []; // those that get a reply, oldest first
  #quiet = 0; // QUIET requests in flight
  #quietOpen = 0; // those of them behind the last request with a reply
  #nextTag = 0;
  #limit = MAX_IN_FLIGHT;
  #maxLen = CEILING_MAX_VALUE + 29;
  #chunks = [];
  #have = 0;
  #need = 1;
  #timer = null;
  #ready;
  features = 0;
  late = []; // LATE_ERRORs as {tag, code}
  goaway = false;
  closed = false;

  /** Connect; ready() says how it went. */
  constructor(options) {
    this.#options = options;
    this.#socket = net.connect({ host: options.host, port: options.port, noDelay: true });
    this.#socket.on('data', (data) => this.#received(data));
    this.#socket.on('end', () => this.#lose('end'));
    this.#socket.on('error', () => this.#lose('reset'));
    this.#socket.on('close', () => this.#lose('end'));
    this.#ready = this.#greet();
    this.#ready.catch(() => {});
  }

  /** Resolves when the connection can be used; rejects with CrabError. */
  ready() {
    return this.#ready;
  }

  async #greet() {
    await new Promise((resolve, reject) => {
      const refuse = () => reject(new CrabError('no connection could be made', 'retry'));
      const timer = setTimeout(refuse, this.#options.timeoutMs);
      this.#socket.once('connect', () => { clearTimeout(timer); resolve(); });
      this.#socket.once('close', () => { clearTimeout(timer); refuse(); });
    }).catch((error) => { this.close(); throw error; });
    try {
      if (this.#options.push) {
        const hello = [Buffer.from([1, 1]), u32(FEATURE_PUSH)];
        this.#welcome(await this.#first({ op: OP.HELLO, fields: hello, value: Buffer.from('node example') }));
      }
      if (this.#options.user !== undefined) {
        await this.#first({ op: OP.AUTH, key: bytes(this.#options.user), value: bytes(this.#options.secret) });
      }
    } catch (error) {
      this.close();
      throw error instanceof Violation ? new CrabError(error.message, 'unknown') : error;
    }
  }

  #first(request) {
    return new Promise((resolve, reject) => this.#send({ ...request, resolve, reject }));
  }

  /** What WELCOME may not say [P-12.1.2], and what it does say. */
  #welcome(welcome) {
    if (welcome.version !== 1 || (welcome.features & ~FEATURE_PUSH) !== 0 || welcome.maxInFlight < 1) {
      throw new Violation('a WELCOME that does not answer this HELLO');
    }
    this.features = welcome.features;
    this.#limit = welcome.maxInFlight;
    this.#maxLen = Math.max(welcome.maxValue + 29, MAX_STATS_TEXT + 9);
  }

  /** Send a request when there is a place for it; its reply, or a CrabError. A QUIET one gives its tag as soon as it is sent. */
  request(request) {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(new CrabError('the connection is closed', 'retry'));
      this.#waiting.push({ ...request, resolve, reject });
      return this.#pump();
    });
  }

  // ---- out

  #pump() {
    while (!this.closed && this.#waiting.length > 0) {
      const isQuiet = this.#waiting[0].quiet === true;
      // The last place is for a request with a reply: nothing else ends QUIET ones [P-6.11.2].
      if (this.#inFlight.length + this.#quiet < this.#limit - (isQuiet ? 1 : 0)) this.#send(this.#waiting.shift());
      else if (this.#inFlight.length === 0) this.#send({ op: OP.PING, resolve() {}, reject() {} });
      else break;
    }
  }

  #send(request) {
    const { op, flags = 0, fields, key, value, quiet } = request;
    let { tag } = request;
    if (quiet || this.#options.tags) {
      tag = this.#nextTag;
      this.#nextTag = (this.#nextTag + 1) >>> 0;
    }
    request.tag = tag;
    request.sent = false;
    const frame = encode({ op, flags: flags | (quiet ? FLAG.QUIET : 0), tag, fields, key, value });
    this.#socket.write(frame, (error) => { request.sent = !error; });
    if (quiet) {
      this.#quiet += 1;
      this.#quietOpen += 1;
      request.resolve(tag);
      return;
    }
    request.quietBefore = this.#quietOpen;
    this.#quietOpen = 0;
    this.#inFlight.push(request);
    if (this.#timer === null) this.#restartTimer();
  }

  #restartTimer() {
    clearTimeout(this.#timer);
    this.#timer = this.#inFlight.length === 0 ? null : setTimeout(() => this.#lose('deadline'), this.#options.timeoutMs);
  }

  // ---- in

  #received(data) {
    this.#chunks.push(data);
    this.#have += data.length;
    if (this.#have < this.#need || this.closed) return; // chunks of a long frame are put together once
    let buffer = this.#chunks.length === 1 ? data : Buffer.concat(this.#chunks);
    try {
      for (;;) {
        const { size, whole } = frameSize(buffer, this.#maxLen);
        this.#need = size;
        if (!whole) break;
        const frame = buffer.subarray(0, size);
        buffer = buffer.subarray(size);
        this.#take(decode(frame));
        if (this.closed) return;
        this.#need = 1;
      }
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      this.#lose('violation');
      return;
    }
    this.#chunks = buffer.length === 0 ? [] : [buffer];
    this.#have = buffer.length;
    this.#pump();
  }

  #take(reply) {
    if (isPush(reply.op)) {
      if (reply.op === PUSH.LATE_ERROR) this.late.push({ tag: reply.tag, code: reply.code });
      if (reply.op === PUSH.GOAWAY) this.goaway = true;
      return; // pushes that are not known are stepped over [P-4.7.3]
    }
    const oldest = this.#inFlight[0];
    if (oldest === undefined) throw new Violation('a reply that no request waits for');
    const isError = reply.op === REPLY.ERROR;
    if (isError && !reply.wrapped && (oldest.tag !== undefined || FATAL.has(reply.code))) {
      this.#lose('fatal', reply.code); // [P-4.6.4] [P-8.2.1]
      return;
    }
    if (reply.tag !== oldest.tag) throw new Violation('a reply with the tag of another request');
    if (reply.known && !isError && !fits(oldest.op, reply.op)) throw new Violation(`reply ${reply.op} to request ${oldest.op}`);
    this.#inFlight.shift();
    this.#quiet -= oldest.quietBefore;
    this.#restartTimer();
    if (isError) oldest.reject(new CrabError(reply.text || 'the server refuses', outcomeOf(reply.code), reply.code));
    else if (!reply.known) oldest.reject(new CrabError('an unknown reply', 'unknown')); // [P-4.5.3]
    else oldest.resolve(reply);
    if (isError && FATAL.has(reply.code)) this.#lose('fatal');
  }

  // ---- the end

  /** Nothing more is sent or received. What became of the requests that are left stands in [P-9.5.5]. */
  #lose(why, code) {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
    const orderly = why === 'end' && this.goaway && this.#have === 0;
    this.#inFlight.forEach((request, index) => {
      let outcome = 'unknown';
      if (!request.sent || orderly || (why === 'fatal' && code !== undefined)) outcome = 'retry';
      if (why === 'fatal' && code !== undefined && index === 0) request.reject(new CrabError('a fatal error', outcomeOf(code), code));
      else request.reject(new CrabError(`the connection ended (${why})`, outcome));
    });
    for (const request of this.#waiting) request.reject(new CrabError(`the connection ended (${why})`, 'retry'));
    this.#inFlight = [];
    this.#waiting = [];
  }

  close() {
    this.#lose('closed');
  }
}

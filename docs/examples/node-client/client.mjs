// SPDX-License-Identifier: MIT
// A CrabCache client: a method for each request. Methods give promises; requests that are made without waiting travel together.
//
//     const cache = new Client({ port: 2722 });
//     await cache.put('city', 'Recife', { ttlMs: 60_000 });
//     const [city, town] = await Promise.all([cache.get('city'), cache.get('town')]); // a Buffer, and null
import { Connection, CrabError } from './connection.mjs';
import { GET, INCR, OP, PUT, REPLY, bytes, i64, itemKey, ttl, u32, u64 } from './wire.mjs';

export { CrabError };

export class Client {
  #options;
  #connection = null;

  /**
   * `timeoutMs`: how long the server may be silent while it owes an answer. `push`: HELLO with the feature PUSH, for QUIET writes.
   * `tags`: number every request, and notice replies that belong to another one.
   */
  constructor({ host = '127.0.0.1', port = 2722, timeoutMs = 5000, push = false, tags = false, user, secret = '' } = {}) {
    this.#options = { host, port, timeoutMs, push, tags, user, secret };
  }

  /** Connect now, and not with the first request. */
  async connect() {
    await this.#use();
    return this;
  }

  close() {
    this.#connection?.close();
    this.#connection = null;
  }

  // A connection that ended, or that the server is about to end, is not used again [P-3.7.4] [P-3.8.2].
  async #use() {
    if (this.#connection === null || this.#connection.closed || this.#connection.goaway) {
      this.#connection = new Connection(this.#options);
    }
    const connection = this.#connection;
    await connection.ready();
    return connection;
  }

  async #call(request) {
    return (await this.#use()).request(request);
  }

  async ping() {
    await this.#call({ op: OP.PING });
  }

  async #get(key, flags, ttlMs) {
    const fields = ttlMs === undefined ? [] : [ttl(ttlMs)];
    const reply = await this.#call({ op: OP.GET, flags: flags | (ttlMs === undefined ? 0 : GET.TTL), key: itemKey(key), fields });
    return reply.op === REPLY.NULL ? null : reply;
  }

  /** The value, or null; with `ttlMs` it also gets that time to live (Infinity: no end). */
  async get(key, { ttlMs } = {}) {
    return (await this.#get(key, 0, ttlMs))?.value ?? null;
  }

  /** {value, version, ttlMs, appFlags}, or null. Versions are BigInts; `ttlMs` is a BigInt, or Infinity. */
  async getWithMeta(key, { ttlMs } = {}) {
    const reply = await this.#get(key, GET.META, ttlMs);
    return reply && { value: reply.value, version: reply.version, ttlMs: reply.ttlMs, appFlags: reply.appFlags };
  }

  /**
   * Store: {stored: true, version?}, or, if a condition did not hold, {stored: false, version?}, with the version of the item that
   * stands, if one does. With `quiet` the tag under which barrier() would report a failure.
   */
  async put(key, value, { ttlMs, appFlags, ifAbsent, ifPresent, ifVersion, wantVersion, quiet } = {}) {
    const condition = ifVersion !== undefined ? PUT.IF_VERSION : ifAbsent ? PUT.IF_ABSENT : ifPresent ? PUT.IF_PRESENT : 0;
    const flags = condition | (ttlMs === undefined ? 0 : PUT.TTL) | (appFlags === undefined ? 0 : PUT.APP_FLAGS)
      | (wantVersion ? PUT.WANT_VERSION : 0);
    const fields = [...(ttlMs === undefined ? [] : [ttl(ttlMs)]), ...(appFlags === undefined ? [] : [u32(appFlags)]),
      ...(ifVersion === undefined ? [] : [u64(ifVersion, 1n)])];
    const reply = await this.#write({ op: OP.PUT, flags, fields, key: itemKey(key), value: bytes(value) }, quiet);
    if (quiet) return reply;
    const stored = reply.op === REPLY.OK || reply.op === REPLY.STORED;
    return reply.version === undefined ? { stored } : { stored, version: reply.version };
  }

  /** Whether there was an item. */
  async delete(key, { quiet } = {}) {
    const reply = await this.#write({ op: OP.DEL, key: itemKey(key) }, quiet);
    return quiet ? reply : reply.op === REPLY.OK;
  }

  /** Whether there is an item, which has a new time to live now. */
  async expire(key, ttlMs, { quiet } = {}) {
    const reply = await this.#write({ op: OP.EXPIRE, fields: [ttl(ttlMs)], key: itemKey(key) }, quiet);
    return quiet ? reply : reply.op === REPLY.OK;
  }

  async #count(op, key, delta, { initial, ttlMs, quiet } = {}) {
    const flags = (initial === undefined ? 0 : INCR.INITIAL) | (ttlMs === undefined ? 0 : INCR.TTL);
    if (flags === INCR.TTL) throw new RangeError('a time to live needs an initial number');
    const fields = [u64(delta), ...(ttlMs === undefined ? [] : [ttl(ttlMs)]), ...(initial === undefined ? [] : [i64(initial)])];
    const reply = await this.#write({ op, flags, fields, key: itemKey(key) }, quiet);
    if (quiet) return reply;
    return reply.op === REPLY.NULL ? null : reply.value;
  }

  /** The new number as a BigInt, or null; an absent key gets `initial`, if that is given. */
  incr(key, delta = 1, options = {}) {
    return this.#count(OP.INCR, key, delta, options);
  }

  decr(key, delta = 1, options = {}) {
    return this.#count(OP.DECR, key, delta, options);
  }

  /** The statistics as text, with control characters removed [P-2.1.5]. */
  async stats(section = '') {
    const reply = await this.#call({ op: OP.STATS, key: bytes(section) });
    return reply.text.toString('utf8').replace(/[\x00-\x09\x0b-\x1f\x7f]/g, '');
  }

  async flush({ quiet } = {}) {
    const reply = await this.#write({ op: OP.FLUSH }, quiet);
    return quiet ? reply : undefined;
  }

  // ---- QUIET writes

  async #write(request, quiet) {
    const connection = await this.#use();
    if (quiet && connection.features === 0) throw new RangeError('quiet writes need a connection with push'); // [P-3.4.5]
    return connection.request({ ...request, quiet: quiet === true });
  }

  /** Wait until all quiet writes are done; those that failed, as {tag, code} [P-5.12.5]. */
  async barrier() {
    const connection = await this.#use();
    await connection.request({ op: OP.PING });
    return connection.late.splice(0);
  }
}


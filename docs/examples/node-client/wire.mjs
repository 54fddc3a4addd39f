// SPDX-License-Identifier: MIT
// The frames of the protocol: requests to bytes, bytes to replies. No sockets. [P-n] are clauses of spec/PROTOCOL.md.

export const OP = {
  PING: 0x01, PUT: 0x02, GET: 0x03, DEL: 0x04, EXPIRE: 0x05, STATS: 0x06, HELLO: 0x07, AUTH: 0x08, FLUSH: 0x09, INCR: 0x0b, DECR: 0x0c,
};
export const REPLY = {
  OK: 0x10, PONG: 0x11, NULL: 0x12, ERROR: 0x13, VALUE: 0x14, STATS: 0x15, META: 0x16, EXISTS: 0x17, NUMBER: 0x18, STORED: 0x19,
  WELCOME: 0x1a, TAGGED: 0x1f,
};
export const PUSH = { LATE_ERROR: 0xc0, GOAWAY: 0xc1 };
export const FLAG = { EXT: 0x20, TAG: 0x40, QUIET: 0x80 };
export const PUT = { TTL: 0x01, APP_FLAGS: 0x02, IF_ABSENT: 0x04, IF_PRESENT: 0x08, IF_VERSION: 0x0c, WANT_VERSION: 0x10 };
export const GET = { TTL: 0x01, META: 0x02 };
export const INCR = { TTL: 0x01, INITIAL: 0x02 };
export const FEATURE_PUSH = 1;
export const MAX_KEY = 65_535;
export const MAX_IN_FLIGHT = 65_536;
export const CEILING_MAX_VALUE = 1_073_741_824;
export const MAX_STATS_TEXT = 1_048_576;
export const FATAL = new Set([0x0103, 0x0104, 0x0202, 0x0210, 0x0211]);

const TTL_MAX_MS = 2n ** 53n - 1n;
const TTL_NEVER = 2n ** 64n - 1n;
const UINT64 = 2n ** 64n;
const INT64 = 2n ** 63n;

// What each request may be answered with, besides ERROR [P-5].
const ANSWERS = {
  [OP.PING]: [REPLY.PONG], [OP.PUT]: [REPLY.OK, REPLY.STORED, REPLY.NULL, REPLY.EXISTS],
  [OP.GET]: [REPLY.VALUE, REPLY.META, REPLY.NULL], [OP.DEL]: [REPLY.OK, REPLY.NULL], [OP.EXPIRE]: [REPLY.OK, REPLY.NULL],
  [OP.STATS]: [REPLY.STATS], [OP.HELLO]: [REPLY.WELCOME], [OP.AUTH]: [REPLY.OK], [OP.FLUSH]: [REPLY.OK],
  [OP.INCR]: [REPLY.NUMBER, REPLY.NULL], [OP.DECR]: [REPLY.NUMBER, REPLY.NULL],
};

// The bytes of the fixed fields of replies and pushes; frames may not be shorter [P-4.5.5].
const LEAST = {
  [REPLY.ERROR]: 2, [REPLY.META]: 20, [REPLY.EXISTS]: 8, [REPLY.NUMBER]: 8, [REPLY.STORED]: 8, [REPLY.WELCOME]: 17, [REPLY.TAGGED]: 5,
  [PUSH.LATE_ERROR]: 6, [PUSH.GOAWAY]: 2,
};

/** A frame that no server may send. */
export class Violation extends Error {}

// ---- requests

/** Bytes of a string (as UTF-8) or of anything with bytes. */
export function bytes(value) {
  if (typeof value === 'string') return Buffer.from(value, 'utf8');
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  throw new TypeError('keys and values are strings, Buffers or Uint8Arrays');
}

export function u64(value, least = 0n) {
  const number = BigInt(value);
  if (number < least || number >= UINT64) throw new RangeError(`${value} is no unsigned number of 64 bits`);
  const field = Buffer.alloc(8);
  field.writeBigUInt64LE(number);
  return field;
}

export function i64(value) {
  const number = BigInt(value);
  if (number < -INT64 || number >= INT64) throw new RangeError(`${value} is no number of 64 bits`);
  const field = Buffer.alloc(8);
  field.writeBigInt64LE(number);
  return field;
}

export function u32(value) {
  const field = Buffer.alloc(4);
  field.writeUInt32LE(value);
  return field;
}

/** A time to live in milliseconds, or Infinity [P-2.4.1]. */
export function ttl(value) {
  const number = value === Infinity ? TTL_NEVER : BigInt(value);
  if (value !== Infinity && (number < 1n || number > TTL_MAX_MS)) throw new RangeError(`a time to live of ${value} ms is not allowed`);
  return u64(number);
}

/** The key of an item: 1 to 65,535 bytes [P-4.3.7]. */
export function itemKey(value) {
  const key = bytes(value);
  if (key.length < 1 || key.length > MAX_KEY) throw new RangeError(`a key has 1 to ${MAX_KEY} bytes, not ${key.length}`);
  return key;
}

/** The bytes of a request: header, tag, fixed fields, key, value [P-4.1] [P-4.2]. */
export function encode({ op, flags = 0, tag, fields = [], key = Buffer.alloc(0), value = Buffer.alloc(0) }) {
  const parts = [Buffer.alloc(8), ...(tag === undefined ? [] : [u32(tag)]), ...fields, key, value];
  const size = parts.reduce((sum, part) => sum + part.length, 0) - 8;
  if (size > 0xffffffff) throw new RangeError('the request is too long');
  parts[0].writeUInt8(op, 0);
  parts[0].writeUInt8(flags | (tag === undefined ? 0 : FLAG.TAG), 1);
  parts[0].writeUInt16LE(key.length, 2);
  parts[0].writeUInt32LE(size, 4);
  return Buffer.concat(parts);
}

// ---- replies

export const isPush = (op) => op >= 0xc0;
export const fits = (request, reply) => ANSWERS[request].includes(reply);
const isReply = (op) => op >= 0x10 && op < 0x80;
const isSingle = (op) => op >= REPLY.OK && op <= REPLY.NULL;
const isKnown = (op) => isSingle(op) || op in LEAST || op === REPLY.VALUE || op === REPLY.STATS;

/**
 * How many bytes the frame at the start of `data` has, or how many are needed to tell, as {size, whole}. Each check is made as
 * soon as its bytes are there [P-4.5.7].
 */
export function frameSize(data, maxLen) {
  if (data.length < 1) return { size: 1, whole: false };
  const op = data[0];
  if (!isReply(op) && !isPush(op)) throw new Violation(`op ${op} is no reply`);
  if (isSingle(op)) return { size: 1, whole: true };
  if (data.length < 5) return { size: 5, whole: false };
  const len = data.readUInt32LE(1);
  if (len > maxLen) throw new Violation(`a frame of ${len} bytes is over the limit`);
  if (len < (LEAST[op] ?? 0)) throw new Violation(`op ${op} with only ${len} bytes`);
  return { size: 5 + len, whole: data.length >= 5 + len };
}

/** What stands in a whole frame: {op, known, tag?, code?, version?, ...}. */
export function decode(frame) {
  const op = frame[0];
  const body = frame.subarray(5);
  switch (op) {
    case REPLY.ERROR: return { op, known: true, code: body.readUInt16LE(0), text: body.subarray(2).toString('utf8') };
    case REPLY.VALUE: return { op, known: true, value: body };
    case REPLY.STATS: return { op, known: true, text: body };
    case REPLY.META: {
      const ttlMs = body.readBigUInt64LE(8);
      return {
        op, known: true, version: body.readBigUInt64LE(0), ttlMs: ttlMs === TTL_NEVER ? Infinity : ttlMs,
        appFlags: body.readUInt32LE(16), value: body.subarray(20),
      };
    }
    case REPLY.EXISTS: case REPLY.STORED: return { op, known: true, version: body.readBigUInt64LE(0) }; // more bytes: [P-6.0.1]
    case REPLY.NUMBER: return { op, known: true, value: body.readBigInt64LE(0) };
    case REPLY.WELCOME: return {
      op, known: true, version: body[0], features: body.readUInt32LE(1), maxKey: body.readUInt32LE(5), maxValue: body.readUInt32LE(9),
      maxInFlight: body.readUInt32LE(13), serverName: body.subarray(17).toString('utf8'),
    };
    case REPLY.TAGGED: return unwrap(body);
    case PUSH.LATE_ERROR: return { op, known: true, tag: body.readUInt32LE(0), code: body.readUInt16LE(4) };
    case PUSH.GOAWAY: return { op, known: true, code: body.readUInt16LE(0) };
    default: return { op, known: isKnown(op) };
  }
}

/** TAGGED is filled exactly by one reply, neither a push nor TAGGED [P-4.6.2]. */
function unwrap(body) {
  const inner = body.subarray(4);
  if (!isReply(inner[0]) || inner[0] === REPLY.TAGGED) throw new Violation(`op ${inner[0]} inside TAGGED`);
  const { size, whole } = frameSize(inner, 0xffffffff);
  if (!whole || size !== inner.length) throw new Violation('TAGGED is not filled by one reply');
  return { ...decode(inner), tag: body.readUInt32LE(0), wrapped: true };
}

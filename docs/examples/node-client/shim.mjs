// SPDX-License-Identifier: MIT
// The client under the conformance kit: crabcache-conformance --client 'node shim.mjs'. The lines are described in
// python/crabcache/conformance/README.md.
import readline from 'node:readline';
import { Client, CrabError } from './client.mjs';

const unhex = (word) => (word === '-' ? Buffer.alloc(0) : Buffer.from(word, 'hex'));
const hex = (data) => (data.length === 0 ? '-' : data.toString('hex'));
const ttlOf = (word) => (word === undefined ? undefined : word === 'never' ? Infinity : BigInt(word));
const ttlWord = (ttlMs) => (ttlMs === Infinity ? 'never' : String(ttlMs));

let client = new Client();
let quietTags = [];

function options(words) {
  return Object.fromEntries(words.map((word) => (word.includes('=') ? word.split(/=(.*)/s, 2) : [word, true])));
}

function said(put) {
  if (put.stored) return put.version === undefined ? 'ok' : `stored ${put.version}`;
  return put.version === undefined ? 'miss' : `exists ${put.version}`;
}

const COMMANDS = {
  async ping() { await client.ping(); return 'ok'; },
  async get(key) { const value = await client.get(unhex(key)); return value === null ? 'miss' : `value ${hex(value)}`; },
  async touch(key, ttl) {
    const value = await client.get(unhex(key), { ttlMs: ttlOf(ttl) });
    return value === null ? 'miss' : `value ${hex(value)}`;
  },
  async meta(key) {
    const item = await client.getWithMeta(unhex(key));
    return item === null ? 'miss' : `meta ${item.version} ${ttlWord(item.ttlMs)} ${item.appFlags} ${hex(item.value)}`;
  },
  async put(key, value, ...words) { return said(await client.put(unhex(key), unhex(value), putOptions(words))); },
  async del(key) { return await client.delete(unhex(key)) ? 'ok' : 'miss'; },
  async expire(key, ttl) { return await client.expire(unhex(key), ttlOf(ttl)) ? 'ok' : 'miss'; },
  async incr(key, delta, ...words) { return counted(await client.incr(unhex(key), BigInt(delta), countOptions(words))); },
  async decr(key, delta, ...words) { return counted(await client.decr(unhex(key), BigInt(delta), countOptions(words))); },
  async stats(section = '') { return `text ${hex(Buffer.from(await client.stats(section)))}`; },
  async flush() { await client.flush(); return 'ok'; },
};

const QUIET = {
  put: (key, value, ...words) => client.put(unhex(key), unhex(value), { ...putOptions(words), quiet: true }),
  del: (key) => client.delete(unhex(key), { quiet: true }),
  expire: (key, ttl) => client.expire(unhex(key), ttlOf(ttl), { quiet: true }),
  incr: (key, delta, ...words) => client.incr(unhex(key), BigInt(delta), { ...countOptions(words), quiet: true }),
  decr: (key, delta, ...words) => client.decr(unhex(key), BigInt(delta), { ...countOptions(words), quiet: true }),
  flush: () => client.flush({ quiet: true }),
};

function putOptions(words) {
  const { ttl, flags, absent, present, version, want } = options(words);
  return {
    ttlMs: ttlOf(ttl), appFlags: flags === undefined ? undefined : Number(flags), ifAbsent: absent, ifPresent: present,
    ifVersion: version === undefined ? undefined : BigInt(version), wantVersion: want,
  };
}

function countOptions(words) {
  const { initial, ttl } = options(words);
  return { initial: initial === undefined ? undefined : BigInt(initial), ttlMs: ttlOf(ttl) };
}

const counted = (number) => (number === null ? 'miss' : `number ${number}`);

/** The line for a request: what it gave, or how it failed. */
async function answer(words) {
  try {
    return await COMMANDS[words[0]](...words.slice(1));
  } catch (error) {
    return failure(error);
  }
}

function failure(error) {
  if (!(error instanceof CrabError)) return 'refused';
  const code = error.code === undefined ? '' : ` ${error.code.toString(16).padStart(4, '0')}`;
  return `failed ${error.outcome}${code}`;
}

async function open([host, port, timeoutMs, ...words]) {
  const { push, tags, user, secret } = options(words);
  client = new Client({
    host, port: Number(port), timeoutMs: Number(timeoutMs), push: push === true, tags: tags === true,
    user: user === undefined ? undefined : unhex(user), secret: secret === undefined ? '' : unhex(secret),
  });
  quietTags = [];
  await client.connect();
  return 'ok';
}

async function quiet(words) {
  quietTags.push(QUIET[words[0]](...words.slice(1)));
  if (quietTags.length === 1) await quietTags[0]; // a refusal shows at once; the others may wait for places
  return 'ok';
}

async function barrier() {
  const failed = await client.barrier();
  const tags = await Promise.all(quietTags);
  quietTags = [];
  return failed.length === 0 ? 'ok' : `late ${failed.map(({ tag, code }) => `${tags.indexOf(tag)}:${code.toString(16).padStart(4, '0')}`).join(' ')}`;
}

async function one(words, lines) {
  if (words[0] === 'pipeline') {
    const answers = [];
    for (let left = Number(words[1]); left > 0; left -= 1) answers.push(answer((await lines.next()).value.split(' ')));
    return (await Promise.all(answers)).join('\n');
  }
  try {
    if (words[0] === 'open') return await open(words.slice(1));
    if (words[0] === 'quiet') return await quiet(words.slice(1));
    if (words[0] === 'barrier') return await barrier();
  } catch (error) {
    quietTags = [];
    return failure(error);
  }
  if (words[0] === 'close') {
    client.close();
    return 'ok';
  }
  return answer(words);
}

const lines = readline.createInterface({ input: process.stdin, crlfDelay: Infinity })[Symbol.asyncIterator]();
for (let line = await lines.next(); !line.done; line = await lines.next()) {
  process.stdout.write(`${await one(line.value.split(' '), lines)}\n`);
}
client.close();

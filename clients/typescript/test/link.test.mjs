/** Connections: registration, losses, signs of life, nonsense. No node is needed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { execFile } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { RollbookError, connect } from 'rollbook';
import { REGISTERED, client, open } from './support/door.mjs';
import { WebSocket, folder, next, sleep } from './support/node.mjs';

test('options that cannot be are refused at once', () => {
  const me = { name: 'me', version: '1', WebSocket };
  assert.throws(() => connect(me), TypeError);
  assert.throws(() => connect({ ...me, urls: [] }), TypeError);
  assert.throws(() => connect({ ...me, url: 'nonsense' }), TypeError);
  assert.throws(() => connect({ ...me, url: 'ws://x', metadata: { n: 1n } }), TypeError);
});

test('without a WebSocket that of the package ws is taken, or it is said what is missing', async (t) => {
  if (globalThis.WebSocket) return t.skip('there is one');
  const door = await open(t);
  const me = connect({ url: door.url, name: 'me', version: '1' });
  t.after(() => me.close());
  await door.accept();
  await me.ready();

  // A copy of the library that stands alone, in a program that has no such package, and in one that has it.
  const alone = folder();
  cpSync(new URL('../dist', import.meta.url), alone, { recursive: true });
  writeFileSync(join(alone, 'package.json'), '{"type":"module"}');
  writeFileSync(join(alone, 'main.js'), `
    import { connect } from './index.js';
    const me = connect({ url: '${door.url}', name: 'alone', version: '1' });
    me.on('error', ({ code }) => console.log('error', code));
    me.on('closed', ({ reason }) => console.log('closed', reason));
    console.log(await me.ready().then(() => 'registered', ({ code, message }) => code + ' ' + message));
    process.exit();
  `);
  const main = (cwd) => promisify(execFile)(process.execPath, [join(alone, 'main.js')], { cwd });
  const { stdout } = await main(alone);
  assert.match(stdout, /^error no_websocket\n/);
  assert.match(stdout, /no_websocket .*npm install ws/);
  const registered = main(fileURLToPath(new URL('..', import.meta.url)));
  await door.accept();
  assert.equal((await registered).stdout, 'registered\n');
});

test('the registration says all that the options say', async (t) => {
  const door = await open(t);
  const same = { instance: 'a', metadata: { zone: 'eu' } };
  const options = { ...same, protocols: ['mine'], token: 'secret', methods: { get() {} } };
  const me = client(t, { url: door.url.replace('ws:', 'http:'), ...options });
  const registered = next(me, 'registered');
  const peer = await door.accept({ ...REGISTERED, instance_id: 'a' });
  const told = { type: 'register', name: 'me', version: '1', methods: ['get'], ...same };
  assert.deepEqual(peer.registration, told);
  assert.equal(peer.request.url, '/ws');
  assert.equal(peer.request.headers['sec-websocket-protocol'].replaceAll(' ', ''), 'rollbook.v1,mine,bearer.secret');
  assert.deepEqual(await registered, { instance_id: 'a', index: 10 });
  await me.ready();
});

test('a WebSocket that cannot be made does not tell the token', async (t) => {
  const me = client(t, { url: 'ws://127.0.0.1:1', token: 'se cret' });
  const error = await next(me, 'error');
  assert.equal(error.code, 'connection_lost');
  assert.ok(!JSON.stringify(error).includes('cret') && !error.message.includes('cret') && error.cause === undefined);
});

test('what was sent is lost with the connection, what was not goes over the next one', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url, instance: 'mine' });
  const early = me.call('users:get', 0);
  const first = await door.accept();
  const asked = await first.next('message');
  assert.deepEqual({ ...asked, id: '' }, {
    type: 'message', id: '', destination: 'users:get', responder: 'call', payload: 0, timeout_ms: 30000,
  });
  first.send({ type: 'response', id: asked.id, responder: 'call', payload: 'early' });
  assert.equal(await early, 'early');
  const lost = me.call('users:get', 1);
  await first.next('message');
  first.cut();
  await assert.rejects(lost, { code: 'connection_lost', retryable: true });
  const waits = me.call('users:get', 2);
  const impatient = me.call('users:get', 3, { timeoutMs: 1 });
  await assert.rejects(impatient, { code: 'timeout' });
  const second = await door.accept();
  assert.equal(second.registration.instance, 'mine');
  const again = await second.next('message');
  assert.equal(again.payload, 2);
  second.send({ type: 'response', id: again.id, payload: 'late' });
  assert.equal(await waits, 'late');
  assert.equal(second.frames.length, 0, 'what had no time any more is not sent');
});

test('attempts go from node to node, after waits that grow', async (t) => {
  const doors = [await open(t), await open(t)];
  const me = client(t, { url: doors[0].url, urls: [doors[1].url] });
  for (const at of [0, 1, 0, 1]) (await doors[at].accept()).close(1013);
  await me.ready();
  let now = performance.now();
  const gaps = [];
  const wild = client(t, { url: 'ws://127.0.0.1:1', backoff: { minMs: 20, maxMs: 80 } });
  wild.on('error', () => gaps.push([performance.now() - now, (now = performance.now())][0]));
  await sleep(1000);
  assert.ok(gaps.length > 8 && gaps.length < 60, `${gaps.length} attempts in a second`);
  assert.ok(Math.max(...gaps.slice(1)) < 200, `${gaps}`);
});

test('it comes back after every close but the final ones', async (t) => {
  const door = await open(t);
  for (const code of [1000, 1001, 1009, 1013, 4408, 4429]) {
    const me = client(t, { url: door.url });
    (await door.accept()).close(code);
    const peer = await door.accept();
    await me.ready();
    const closed = me.close();
    await peer.next('disconnect');
    peer.close(1000);
    await closed;
  }
  for (const code of [4400, 4401, 4403, 4409, 4410]) {
    const me = client(t, { url: door.url });
    const told = { code: code === 4401 ? 'unauthorized' : 'closed' };
    const closed = next(me, 'closed');
    const peer = await door.accept();
    const pending = me.call('a:b');
    await peer.next('message');
    peer.close(code);
    await assert.rejects(pending, told);
    assert.equal((await closed).code, code);
    await assert.rejects(me.call('a:b'), told);
    await assert.rejects(me.ready(), told);
    await me.send('a:b').catch((error) => assert.equal(error.code, told.code));
    await me.close();
  }
});

test('a refused registration says why', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const [ready, call, closed] = [me.ready(), me.call('a:b'), next(me, 'closed')];
  const told = next(me, 'error');
  const peer = await door.accept(null);
  peer.send({ type: 'error', code: 'bad_registration', message: 'name: no', retryable: false });
  peer.close(4400);
  for (const refused of [ready, call]) await assert.rejects(refused, { code: 'bad_registration', message: 'name: no' });
  assert.equal((await told).code, 'bad_registration');
  assert.equal((await closed).code, 4400);
});

test('a node that stops is left alone until it has closed', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const first = await door.accept();
  const begun = me.call('a:b', 'begun');
  const asked = await first.next('message');
  first.send({ type: 'disconnect', code: 1001, reason: 'node stopping' });
  await sleep(20);
  const later = me.call('a:b', 'later');
  first.send({ type: 'response', id: asked.id, payload: 1 });
  assert.equal(await begun, 1);
  assert.equal(first.frames.length, 0);
  first.close(1001);
  const second = await door.accept();
  const again = await second.next('message');
  second.send({ type: 'response', id: again.id, payload: 2 });
  assert.equal(await later, 2);
});

test('close() lets what is on its way end', async (t) => {
  const door = await open(t);
  let finish;
  const slow = new Promise((resolve) => (finish = resolve));
  const me = client(t, { url: door.url, methods: { slow: () => slow } });
  const peer = await door.accept();
  await me.ready();
  peer.send({ type: 'message', id: 'm', destination: 'me:slow', consumer: 'x', responder: 'r', payload: null });
  const call = me.call('a:b');
  const asked = await peer.next('message');
  const [closed, event] = [me.close(), next(me, 'closed')];
  await peer.next('disconnect');
  const late = me.call('a:b');
  peer.send({ type: 'response', id: asked.id, payload: 1 });
  assert.equal(await call, 1);
  finish('slowly');
  assert.deepEqual(await peer.next('response'), { type: 'response', id: 'm', payload: 'slowly' });
  peer.close(1000);
  await closed;
  await assert.rejects(late, { code: 'closed' });
  assert.equal((await event).code, 1000);
  await me.close();
});

test('close() ends attempts and connections that are not registered', async (t) => {
  const nobody = client(t, { url: 'ws://127.0.0.1:1', backoff: { minMs: 1e6, maxMs: 1e6 } });
  const ready = assert.rejects(nobody.ready(), { code: 'closed' });
  await next(nobody, 'error');
  await nobody.close();
  await ready;
  const door = await open(t);
  const me = client(t, { url: door.url });
  await door.accept(null);
  await me.close();
  await client(t, { url: door.url }).close();
});

test('silence is asked about and then is a loss', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url, heartbeat: { pingMs: 60, lostMs: 160 } });
  const lost = [];
  me.on('error', (error) => lost.push(error));
  const first = await door.accept();
  for (let n = 0; n < 3; n += 1) {
    await first.next('ping');
    first.send({ type: 'pong' });
  }
  assert.deepEqual(lost, []);
  await first.next('ping');
  const began = performance.now();
  const second = await door.accept(null);
  assert.ok(performance.now() - began > 50);
  assert.equal(lost[0].data.reason, 'no sign of life');
  // One that never says anything is lost as well.
  await door.accept();
  assert.equal(second.frames.length, 0);
  await me.ready();
});

test('nonsense is ignored', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url, methods: { get: (payload) => payload } });
  const heard = [];
  const names = ['online', 'offline', 'connect', 'disconnect', 'closed'];
  for (const name of names) me.on(name, (event) => heard.push(event));
  const peer = await door.accept();
  const call = me.call('a:b');
  const { id } = await peer.next('message');
  const event = { type: 'event', index: 99, service: { name: 'x', version: '1', methods: [] }, instance_id: 'i' };
  const frames = [
    '', 'nonsense', '[1]', '7', 'null', '"x"', '{', '{}', '{"type":7}', { type: 'shout' }, { type: '__proto__' },
    { type: 'published', id }, { type: 'response' }, { type: 'response', id: 'other' }, { type: 'response', id: [id] },
    { type: 'event' }, { type: 'event', event: 'service-connect' },
    { type: 'event', event: 'service-connect', service: 1 },
    { ...event, event: 'service-closed' }, { ...event, event: 'service-connect', index: 'x' },
    { ...event, event: 'service-connect', index: 10 }, { type: 'delivery', id: 'x', event: {} }, { type: 'delivery' },
    { type: 'unsubscribed' }, { ...REGISTERED, services: [event.service] }, { type: 'connect' }, { type: 'pong' },
    { type: 'message', id: 'no', destination: 'me:constructor', responder: 'r' },
    { type: 'error', id, responder: 'call' },
  ];
  frames.slice(0, -1).forEach(peer.send);
  assert.deepEqual((await peer.next('error')).code, 'no_method');
  peer.send(frames.at(-1));
  await assert.rejects(call, { code: 'internal', message: '', retryable: false });
  assert.deepEqual(heard, []);
  assert.equal(me.services.size, 0);
  assert.deepEqual(peer.frames, []);
});

test('frames that are too large or no JSON are not sent', async (t) => {
  const door = await open(t);
  const big = 'x'.repeat(1000);
  const methods = {
    big: () => big,
    data: () => Promise.reject(Object.assign(new Error('€'.repeat(2000)), { data: 1n, code: 'c'.repeat(200) })),
  };
  const me = client(t, { url: door.url, methods });
  const peer = await door.accept();
  await assert.rejects(me.call('a:b', big), { code: 'too_large', retryable: false });
  await assert.rejects(me.call('a:b', '€'.repeat(320)), { code: 'too_large' });
  await assert.rejects(me.call('a:b', 1n), TypeError);
  await assert.rejects(me.send('a:b', big), { code: 'too_large' });
  void me.send('a:b', '€'.repeat(200));
  assert.equal((await peer.next('message')).payload.length, 200);
  peer.send({ type: 'message', id: 'm1', destination: 'me:big', responder: 'r' });
  assert.equal((await peer.next('error')).code, 'too_large');
});

test('an error that the bus would not take is cut', async (t) => {
  const door = await open(t);
  const thrown = Object.assign(new Error('€'.repeat(2000)), { data: 1n, code: 'c'.repeat(200), retryable: true });
  const me = client(t, { url: door.url, methods: { fails: () => Promise.reject(thrown) } });
  const peer = await door.accept(null);
  peer.send({ type: 'connect', max_frame: 100000 });
  peer.send(REGISTERED);
  await me.ready();
  peer.send({ type: 'message', id: 'm', destination: 'me:fails', responder: 'r' });
  const error = { type: 'error', id: 'm', code: 'c'.repeat(128), message: '€'.repeat(341), retryable: true };
  assert.deepEqual(await peer.next('error'), error);
});

test('what a listener throws disturbs nobody', () => {
  const script = `
    import { connect } from 'rollbook';
    class WebSocket {
      constructor() {
        const frames = [{ type: 'connect' }, { type: 'registered', index: 1 }];
        setTimeout(() => frames.forEach((frame) => this.onmessage({ data: JSON.stringify(frame) })));
      }
      send() {}
      close() {}
    }
    const me = connect({ url: 'ws://x', name: 'me', version: '1', WebSocket });
    me.on('registered', () => { throw new Error('mine'); });
    me.on('registered', () => console.log('heard'));
    process.on('unhandledRejection', (error) => console.log(error.message));
    await me.ready();
    console.log('ready');
    setTimeout(() => process.exit(0));`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.deepEqual(stdout.split('\n').filter(Boolean).sort(), ['heard', 'mine', 'ready']);
});

test('an answer goes over the connection of its question or not at all', async (t) => {
  const door = await open(t);
  let finish;
  const me = client(t, { url: door.url, methods: { slow: () => new Promise((resolve) => (finish = resolve)) } });
  const first = await door.accept();
  first.send({ type: 'message', id: 'm', destination: 'me:slow', responder: 'r' });
  await sleep(20);
  first.cut();
  const second = await door.accept();
  await me.ready();
  finish(1);
  await sleep(20);
  assert.deepEqual(second.frames, []);
  assert.ok(new RollbookError('x', 'y') instanceof Error);
});

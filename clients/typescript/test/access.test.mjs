/** Who the client is, and over what it says so: tokens, certificates, and what follows when they are refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { WebSocket as PackageWebSocket } from 'ws';
import { certificate, client, open } from './support/door.mjs';
import { next, sleep, until } from './support/node.mjs';

const pair = certificate();
const noOpenssl = pair ? false : 'there is no openssl to make certificates with';
const offered = (request) => request.headers['sec-websocket-protocol'].replaceAll(' ', '').split(',');

test('a function is asked for the token at each connect', async (t) => {
  const door = await open(t);
  let asked = 0;
  client(t, { url: door.url, token: async () => `rb1_k${++asked}_x` });
  for (const at of [1, 2, 3]) {
    const peer = await door.accept();
    assert.deepEqual(offered(peer.request), ['rollbook.v1', `bearer.rb1_k${at}_x`]);
    peer.cut();
  }
});

test('a function that fails, or never ends, is asked again and tells no secret', async (t) => {
  const door = await open(t);
  const answers = [() => Promise.reject(new Error('s3cr3t')), () => new Promise(() => {}), () => undefined];
  const me = client(t, { url: door.url, token: () => answers.shift()(), heartbeat: { pingMs: 50, lostMs: 100 } });
  const told = [];
  me.on('error', ({ code, message }) => told.push(`${code}: ${message}`));
  assert.deepEqual(offered((await door.accept()).request), ['rollbook.v1'], 'undefined is no token');
  assert.equal(told.length, 2);
  assert.ok(told.every((text) => text.startsWith('connection_lost') && !text.includes('s3cr3t')), told.join('\n'));
});

test('a token that comes after the client has closed opens nothing', async (t) => {
  const seen = [];
  const door = await open(t, { refuse: (request) => void seen.push(request.url) });
  let give;
  const me = client(t, { url: door.url, token: () => new Promise((resolve) => (give = resolve)) });
  await until('the question', () => give);
  await me.close();
  give('late');
  const other = client(t, { url: door.url });
  await door.accept();
  await other.ready();
  assert.equal(seen.length, 1, 'only the other one has come');
});

for (const [how, refuse] of [
  ['close code 4401', async (door) => (await door.accept(false)).close(4401)],
  ['close code 4401 after the registration', async (door) => (await door.accept()).close(4401)],
]) {
  test(`a token that is refused by ${how} is the end, and all that waits is told`, async (t) => {
    const door = await open(t);
    const me = client(t, { url: door.url, token: 'old' });
    const closed = next(me, 'closed');
    await refuse(door);
    assert.equal((await closed).code, 4401);
    await assert.rejects(me.call('users:get'), { code: 'unauthorized', retryable: false });
  });

  test(`a function is asked once more after ${how}, and not a second time in a row`, async (t) => {
    const door = await open(t);
    let asked = 0;
    const me = client(t, { url: door.url, token: () => `token-${++asked}` });
    const closed = next(me, 'closed');
    await refuse(door);
    const peer = await door.accept();
    assert.ok(offered(peer.request).includes('bearer.token-2'));
    // It was registered meanwhile, so one refusal is forgiven again.
    peer.close(4401);
    (await door.accept(false)).close(4401);
    assert.equal((await closed).code, 4401);
    assert.equal(asked, 3);
  });
}

test('HTTP status 401 is the end as well, where the WebSocket tells the status', async (t) => {
  const door = await open(t, { refuse: () => 401 });
  const fixed = client(t, { url: door.url, token: 'old', WebSocket: PackageWebSocket });
  await next(fixed, 'closed');
  await assert.rejects(fixed.ready(), { code: 'unauthorized' });
  let asked = 0;
  const renewed = client(t, { url: door.url, token: () => `t${++asked}`, WebSocket: PackageWebSocket });
  await next(renewed, 'closed');
  assert.equal(asked, 2);
});

test('what is forbidden fails, and the connection stays', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const peer = await door.accept();
  const [published, called] = [me.publish('orders.new', 1), me.call('users:get')];
  for (const type of ['publish', 'message']) {
    const { id } = await peer.next(type);
    peer.send({ type: 'error', id, responder: 'call', code: 'forbidden', message: 'no right', retryable: false });
  }
  await assert.rejects(published, { code: 'forbidden', retryable: false });
  await assert.rejects(called, { code: 'forbidden', retryable: false });
  await me.ready();
});

test('a right that is lost ends its stream with a reason', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const stream = me.subscribe('orders.>', {}, () => {});
  const peer = await door.accept();
  const { id } = await peer.next('subscribe');
  peer.send({ type: 'subscribed', id });
  await stream.ready;
  peer.send({ type: 'unsubscribed', id, code: 'forbidden', reason: 'no right any more', retryable: false });
  assert.equal(await stream.ended, 'no right any more');
  assert.equal(stream.code, 'forbidden');
  await me.ready();
});

test('a CA and a client certificate are enough for a node that asks for both', { skip: noOpenssl }, async (t) => {
  const tls = { ...pair, ca: pair.cert, requestCert: true, rejectUnauthorized: true };
  const door = await open(t, { tls });
  const url = door.url.replace('wss:', 'https:');
  const me = client(t, { url, ca: pair.cert, ...pair, token: 'rb1_a_b', WebSocket: undefined });
  const peer = await door.accept();
  assert.deepEqual(offered(peer.request), ['rollbook.v1', 'bearer.rb1_a_b']);
  assert.equal(peer.request.socket.authorized, true);
  await me.ready();
  const bare = client(t, { url, ca: pair.cert, WebSocket: undefined });
  assert.equal((await next(bare, 'error')).code, 'connection_lost');
});

test('a node whose CA is not trusted is told nothing', { skip: noOpenssl }, async (t) => {
  const door = await open(t, { tls: pair });
  const me = client(t, { url: door.url, token: 's3cr3t', WebSocket: PackageWebSocket });
  const { code, message } = await next(me, 'error');
  assert.equal(code, 'connection_lost');
  assert.match(message, /self.signed certificate/);
});

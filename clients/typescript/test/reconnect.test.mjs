/** Nodes that are killed, and come back or do not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from 'rollbook';
import { WebSocket, clients, freePort, next, noBin, sleep, start, until } from './support/node.mjs';

const on = { skip: noBin, timeout: 120_000 };

test('a node that is killed and comes back finds its clients again', on, async (t) => {
  const port = await freePort();
  let node = await start(port);
  t.after(() => node.kill());
  const join = clients(t, node.web);
  let begun = 0;
  const methods = { get: (payload) => payload, never: () => new Promise(() => (begun += 1)) };
  const users = await join({ name: 'users', instance: 'users-a', methods });
  const gone = await join({ name: 'gone', methods });
  const shop = await join({ name: 'shop', methods });
  await until('three services', () => shop.services.size === 3);
  const { services } = shop;

  const pending = assert.rejects(shop.call('users:never'), { code: 'connection_lost', retryable: true });
  await until('the call', () => begun === 1);
  const lost = [users, shop].map((client) => next(client, 'error'));
  await node.kill();
  await pending;
  assert.deepEqual((await Promise.all(lost)).map(({ code }) => code), ['connection_lost', 'connection_lost']);
  assert.equal(services.size, 3, 'as it was');

  await gone.close();
  await assert.rejects(shop.call('users:get', 1, { timeoutMs: 100 }), { code: 'timeout' });
  const again = [users, shop].map((client) => next(client, 'registered'));
  const ready = shop.ready();
  const sent = shop.send('shop:get', 1);
  // Waits for the node, and for nobody else: the other service may be the later one.
  const waits = shop.call('shop:get', 'waited');
  node = await start(port, node.data);
  assert.equal(await waits, 'waited');
  await Promise.all([ready, sent]);
  assert.equal((await Promise.all(again))[0].instance_id, 'users-a');
  await until('the service', () => services.get('users')?.instances === 1);
  assert.equal(await shop.call('users:get', 2), 2);
  await until('the right services', () => [...services.keys()].sort().join() === 'shop,users');
  assert.equal(services.get('shop').instances, 1);
});

test('the next node takes over from one that is killed', on, async (t) => {
  const nodes = [await start(), await start()];
  t.after(() => Promise.all(nodes.map((node) => node.kill())));
  const [first, second] = nodes.map((node) => node.web);
  const shop = await clients(t, first)({ name: 'shop', urls: [second] });
  const waiting = await clients(t, second)({ name: 'users', methods: { get: () => 'second' } });
  await assert.rejects(shop.call('users:get'), { reason: 'no_service' });
  const lost = next(shop, 'error');
  await nodes[0].kill();
  await lost;
  assert.equal(await shop.call('users:get'), 'second');
  assert.ok(shop.services.has('users') && waiting.services.has('users'));
});

test('a node that stops lets requests end, and its clients go elsewhere', on, async (t) => {
  const nodes = [await start(), await start()];
  t.after(() => Promise.all(nodes.map((node) => node.kill())));
  const urls = nodes.map((node) => node.web);
  const methods = { slow: () => sleep(300).then(() => 'in time') };
  const users = await clients(t)({ urls, name: 'users', methods });
  const shop = await clients(t)({ urls, name: 'shop' });
  const call = shop.call('users:slow');
  await sleep(100);
  const lost = next(shop, 'error');
  const again = [users, shop].map((client) => next(client, 'registered'));
  const stopped = nodes[0].stop();
  assert.equal(await call, 'in time');
  assert.equal((await lost).data.code, 1001);
  await Promise.all([...again, stopped]);
  assert.equal(await shop.call('users:slow'), 'in time');
});

test('a client that is silent stays', { ...on, skip: noBin || !process.env.ROLLBOOK_SLOW }, async (t) => {
  const node = await start();
  t.after(() => node.kill());
  const shop = await clients(t, node.web)({ name: 'shop' });
  const lost = [];
  shop.on('error', (error) => lost.push(error));
  await sleep(50_000);
  assert.deepEqual(lost, []);
});

test('a client waits for a node that is not there yet', on, async (t) => {
  const port = await freePort();
  const backoff = { minMs: 50, maxMs: 200 };
  const options = { name: 'me', version: '1', methods: { x: () => 1 }, backoff, WebSocket };
  const me = connect({ url: `ws://127.0.0.1:${port}`, ...options });
  t.after(() => me.close());
  const call = me.call('me:x');
  await sleep(200);
  const node = await start(port);
  t.after(() => node.kill());
  assert.equal(await call, 1);
});

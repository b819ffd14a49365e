/** Services and consumers at a node. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { RollbookError } from 'rollbook';
import { clients, next, noNode, sleep, theNode, until } from './support/node.mjs';

let node;
before(async () => void (node = noNode ? undefined : await theNode()));
after(() => node?.release());
const on = { skip: noNode };
/** Names that no other run uses. */
const run = Date.now().toString(36);
const admin = (method, path) => fetch(new URL(path, node.web), { method });

test('a consumer calls a service, and a service calls itself and others', on, async (t) => {
  const join = clients(t, node.web);
  const contexts = [];
  const name = `users-${run}`;
  const methods = {
    get: (payload, context) => (contexts.push(context), { got: payload }),
    nothing: () => {},
  };
  const users = await join({ name, methods });
  const shop = await join({ name: 'shop' });
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  assert.deepEqual(await shop.call(`${name}:get`, { id: 7, text: 'ä€😀' }, { traceparent, key: 'k' }), {
    got: { id: 7, text: 'ä€😀' },
  });
  const { id, ...context } = contexts[0];
  assert.ok(id.length > 8);
  assert.deepEqual(context, { destination: `${name}:get`, method: 'get', consumer: 'shop', traceparent, wanted: true });
  assert.equal(await shop.call(`${name}:nothing`), null);
  assert.deepEqual(await users.call(`${name}:get`), { got: null });
  const many = await Promise.all(Array.from({ length: 500 }, (_, n) => shop.call(`${name}:get`, n)));
  assert.deepEqual(many.map(({ got }) => got), Array.from({ length: 500 }, (_, n) => n));
});

test('a failure has the code, message and data of the service', on, async (t) => {
  const join = clients(t, node.web);
  const name = `fails-${run}`;
  const methods = {
    coded: () => {
      throw Object.assign(new Error('no such user'), { code: 'unknown_user', retryable: true, data: { id: 7 } });
    },
    plain: () => Promise.reject(new Error('plain')),
    text: () => Promise.reject('text'),
    far: async (payload) => payload.me.call('x:y'),
    nothing: () => Promise.reject(),
  };
  await join({ name, methods });
  const shop = await join({ name: 'shop' });
  const failed = await shop.call(`${name}:coded`).catch((error) => error);
  assert.ok(failed instanceof RollbookError);
  const { code, message, retryable, data, reason } = failed;
  assert.deepEqual([code, message, retryable, data], ['unknown_user', 'no such user', true, { id: 7 }]);
  assert.equal(reason, undefined);
  await assert.rejects(shop.call(`${name}:plain`), { code: 'service_error', message: 'plain', retryable: false });
  await assert.rejects(shop.call(`${name}:text`), { code: 'service_error', message: 'text' });
  await assert.rejects(shop.call(`${name}:far`), { code: 'service_error' });
  await assert.rejects(shop.call(`${name}:nothing`), { code: 'service_error' });
});

test('what nobody can be given is unhandled, for the sender and for services', on, async (t) => {
  const join = clients(t, node.web);
  const name = `some-${run}`;
  const some = await join({ name, methods: { get() {} } });
  const shop = await join({ name: `shop-${run}` });
  const none = `none-${run}:x`;
  const told = next(some, 'unhandled', ({ destination }) => destination === none);
  await assert.rejects(shop.call(none), { code: 'unhandled', reason: 'no_service', retryable: false });
  const { consumer, reason, message_id } = await told;
  assert.deepEqual([consumer, reason, typeof message_id], [`shop-${run}`, 'no_service', 'string']);
  await assert.rejects(shop.call(`${name}:void`), { code: 'unhandled', reason: 'no_method' });
  const own = next(shop, 'unhandled');
  await shop.send(none, 1);
  assert.deepEqual((({ destination, consumer, reason }) => [destination, consumer, reason])(await own), [
    none, `shop-${run}`, 'no_service',
  ]);
});

test('a one-way message gets no answer, and its failure stays at home', on, async (t) => {
  const join = clients(t, node.web);
  const name = `log-${run}`;
  const lines = [];
  const methods = {
    line: (payload, { wanted }) => void lines.push([payload, wanted]),
    fails: () => Promise.reject(new Error('at home')),
  };
  const log = await join({ name, methods });
  const shop = await join({ name: 'shop' });
  const heard = [];
  for (const one of [shop, log]) one.on('error', (error) => heard.push([one === log, error.code, error.message]));
  shop.send(`${name}:line`, 'one');
  await shop.send(`${name}:line`, 'two');
  await until('two lines', () => lines.length === 2);
  await shop.send(`${name}:fails`);
  await until('the failure', () => heard.length > 0);
  await sleep(50);
  assert.deepEqual(lines, [['one', false], ['two', false]]);
  assert.deepEqual(heard, [[true, 'handler_failed', 'at home']]);
});

test('a refused one-way message is the event error', on, async (t) => {
  const shop = await clients(t, node.web)({ name: 'shop' });
  const told = next(shop, 'error');
  await shop.send('nonsense');
  assert.equal((await told).code, 'bad_message');
  await assert.rejects(shop.call('nonsense'), { code: 'bad_message' });
  await assert.rejects(shop.call('a:b', 1, { timeoutMs: 600001 }), { code: 'bad_message' });
});

test('no answer in time is a timeout, and who gives up hears nothing more', on, async (t) => {
  const join = clients(t, node.web);
  const name = `slow-${run}`;
  let finish;
  const slow = await join({ name, methods: { get: () => new Promise((resolve) => (finish = resolve)) } });
  const shop = await join({ name: 'shop' });
  const heard = [];
  for (const name of ['error', 'unhandled']) shop.on(name, (event) => heard.push(event));
  const late = next(slow, 'error');
  const began = performance.now();
  await assert.rejects(shop.call(`${name}:get`, 1, { timeoutMs: 150 }), { code: 'timeout', retryable: false });
  assert.ok(performance.now() - began < 1000);
  await sleep(100);
  finish(1);
  assert.equal((await late).code, 'unknown_request');
  const abort = new AbortController();
  const call = shop.call(`${name}:get`, 2, { signal: abort.signal });
  setTimeout(() => abort.abort(new Error('changed my mind')), 50);
  await assert.rejects(call, { message: 'changed my mind' });
  finish(2);
  await assert.rejects(shop.call(`${name}:get`, 3, { signal: AbortSignal.abort() }), { name: 'AbortError' });
  await sleep(50);
  assert.deepEqual(heard, []);
});

test('services see who comes and goes, and consumers are nothing', on, async (t) => {
  const join = clients(t, node.web);
  const name = `roll-${run}`;
  const watcher = await join({ name: 'watcher' });
  const heard = [];
  for (const word of ['online', 'offline', 'connect', 'disconnect']) {
    watcher.on(word, ({ service }) => service.name === name && heard.push(word));
  }
  const seen = () => watcher.services.get(name);
  const online = next(watcher, 'online', ({ service }) => service.name === name);
  const first = await join({ name, instance: 'one', version: '1.0', methods: { get() {} } });
  assert.deepEqual((({ service, instance_id }) => [service, instance_id])(await online), [
    { name, version: '1.0', methods: ['get'] }, 'one',
  ]);
  const second = await join({ name, version: '2.0', methods: { get() {}, put() {} } });
  await until('two', () => seen()?.instances === 2);
  assert.deepEqual(seen(), { name, version: '2.0', methods: ['get', 'put'], instances: 2 });
  const late = await join({ name: 'late' });
  const shown = { ...late.services.get(name) };
  assert.deepEqual({ ...shown, methods: shown.methods.sort() }, seen());
  await second.close();
  await until('one', () => seen()?.instances === 1 && late.services.get(name)?.instances === 1);
  assert.deepEqual(seen().methods, ['get']);
  await first.close();
  await until('none', () => !watcher.services.has(name) && !late.services.has(name));
  assert.deepEqual(heard, ['connect', 'online', 'connect', 'disconnect', 'disconnect', 'offline']);
});

test('a broadcast reaches the services and not its sender', on, async (t) => {
  const join = clients(t, node.web);
  const one = await join({ name: `one-${run}`, methods: { x() {} } });
  const shop = await join({ name: `shop-${run}` });
  const told = next(one, 'broadcast', ({ consumer }) => consumer === `shop-${run}`);
  const heard = [];
  for (const client of [one, shop]) client.on('broadcast', ({ payload }) => heard.push(payload));
  await shop.broadcast({ at: '22:00' });
  const { payload, at } = await told;
  assert.deepEqual(payload, { at: '22:00' });
  assert.ok(at.endsWith('Z'));
  await one.broadcast('mine');
  await sleep(100);
  assert.ok(!heard.includes('mine'));
});

test('orders of the operator are done and acknowledged', on, async (t) => {
  const join = clients(t, node.web);
  const name = `ordered-${run}`;
  const done = [];
  const onCommand = async ({ command, data }) => {
    await sleep(20);
    if (command === 'restart') throw new Error('not now');
    done.push([command, typeof data.timestamp]);
  };
  const service = await join({ name, methods: { x() {} }, onCommand });
  const heard = next(service, 'command');
  const result = async (order) => {
    const answer = await admin('POST', `/api/services/${name}/${order}`);
    return (await answer.json()).items[0].result;
  };
  assert.equal(await result('ping'), 'acknowledged');
  assert.equal((await heard).command, 'ping');
  const refused = next(service, 'error');
  assert.equal(await result('restart'), 'delivered');
  assert.equal((await refused).message, 'not now');
  assert.equal(await result('shutdown'), 'acknowledged');
  assert.deepEqual(done, [['ping', 'number'], ['shutdown', 'number']]);
});

test('who is replaced or removed stays away', on, async (t) => {
  const join = clients(t, node.web);
  const name = `blue-${run}`;
  const methods = { x() {} };
  const older = await join({ name, instance: 'blue', methods });
  const replaced = next(older, 'closed');
  const newer = await join({ name, instance: 'blue', methods });
  assert.equal((await replaced).code, 4409);
  const removed = next(newer, 'closed');
  assert.equal((await admin('DELETE', `/api/services/${name}`)).status, 204);
  assert.equal((await removed).code, 4410);
  await assert.rejects(newer.call('a:b'), { code: 'closed' });
});

test('a registration that cannot be is refused for good', on, async (t) => {
  const refused = clients(t, node.web)({ name: 'no:name' });
  await assert.rejects(refused, { code: 'bad_registration', retryable: false });
});

test('close() lets requests end', on, async (t) => {
  const join = clients(t, node.web);
  const name = `leaves-${run}`;
  const leaves = await join({ name, methods: { slow: () => sleep(200).then(() => 'done') } });
  const shop = await join({ name: 'shop' });
  const call = shop.call(`${name}:slow`);
  await sleep(50);
  const closed = next(leaves, 'closed');
  await leaves.close();
  assert.deepEqual([await call, (await closed).code], ['done', 1000]);
});

/** Publish and subscribe at a node. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { clients, freePort, next, noBin, noNode, sleep, start, theNode, until } from './support/node.mjs';

let node;
before(async () => void (node = noNode ? undefined : await theNode()));
after(() => node?.release());
/** Subjects that no other run uses. */
const run = Date.now().toString(36);
let count = 0;
const on = (name, does) => {
  const subject = `ts${run}.${(count += 1)}`;
  test(name, { skip: noNode, timeout: 60_000 }, (t) => does(t, clients(t, node.web), subject));
};

on('an event is stored once for its key, and has a place', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  const first = await shop.publish(subject, { n: 1 }, { key: 'k' });
  assert.match(first.eventId, /^e_/);
  assert.ok(first.createdAt.endsWith('Z'));
  assert.equal(first.duplicate, false);
  assert.deepEqual(await shop.publish(subject, { n: 1 }, { key: 'k' }), { ...first, duplicate: true });
  const second = await shop.publish(subject, { n: 2 });
  assert.equal(second.index, first.index + 1);
  await assert.rejects(shop.publish(`${subject}.>`, 1));
});

on('headers come with their event', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  const headers = { Tenant: 'acme', tag: ['new', 'vip'] };
  await shop.publish(subject, 1, { headers });
  await shop.publish(subject, 2);
  const seen = [];
  const stream = shop.subscribe(subject, { start: 'oldest' }, (event) => seen.push(event.headers));
  await until('both', () => seen.length === 2);
  assert.deepEqual(seen, [headers, undefined]);
  await stream.close();
});

on('a subscription replays and goes on live', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  for (const n of [1, 2, 3]) await shop.publish(subject, n);
  const seen = [];
  const stream = shop.subscribe(subject, { start: 'oldest' }, (event) => seen.push(event));
  await stream.ready;
  const fourth = await shop.publish(subject, 4);
  await until('four', () => seen.length === 4);
  assert.deepEqual(seen.map(({ payload }) => payload), [1, 2, 3, 4]);
  assert.deepEqual([seen[3].id, seen[3].index, seen[3].subject], [fourth.eventId, fourth.index, subject]);
  const behind = [];
  const second = shop.subscribe(subject, { start: seen[1].id }, ({ payload }) => behind.push(payload));
  await until('two', () => behind.length === 2);
  assert.deepEqual(behind, [3, 4]);
  await stream.close();
  await second.close();
  await shop.publish(subject, 5);
  await sleep(200);
  assert.deepEqual([seen.length, behind.length], [4, 2]);
});

on('what is not acknowledged comes again', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  await shop.publish(subject, 1);
  await shop.publish(subject, 2);
  const seen = [];
  const handler = ({ payload }) => {
    seen.push(payload);
    if (seen.length === 1) throw new Error('not yet');
  };
  const options = { start: 'oldest', ack: 'manual', redelivery: '200ms', maxInFlight: 1 };
  const stream = shop.subscribe(subject, options, handler);
  await until('three', () => seen.length === 3);
  await sleep(500);
  assert.deepEqual(seen, [1, 1, 2]);
  await stream.close();
});

on('many events are in flight, and none of those that were handled comes again', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  for (let n = 0; n < 300; n++) await shop.publish(subject, n);
  const seen = [];
  const options = { start: 'oldest', ack: 'manual', consumer: `many${run}`, backoff: '10s' };
  const follow = () => shop.subscribe(subject, options, ({ payload }) => seen.push(payload));
  const first = follow();
  await until('all', () => seen.length === 300);
  await first.close();
  const again = follow();
  await again.ready;
  await sleep(300);
  assert.deepEqual(seen, [...Array(300).keys()]);
  await again.close();
});

on('events come again later, stay as long as they are worked on, or become dead letters', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  for (const n of [1, 2, 3]) await shop.publish(subject, n);
  const [seen, dead] = [[], []];
  const letters = shop.subscribe(`_dead_.${subject}`, { start: 'oldest' }, ({ payload }) => dead.push(payload));
  const handler = async (event) => {
    seen.push([event.payload, Date.now()]);
    const times = seen.filter(([payload]) => payload === event.payload).length;
    if (event.payload === 1 && times === 1) assert.equal(await event.nack('700ms'), true);
    if (event.payload === 2) assert.equal(await event.reject('this is no image'), true);
    for (let n = 0; event.payload === 3 && n < 6; n += 1) {
      await sleep(150);
      assert.equal(await event.inProgress(), true);
    }
  };
  const options = { start: 'oldest', ack: 'manual', consumer: `words${run}`, redelivery: '400ms' };
  const stream = shop.subscribe(subject, options, handler);
  await until('all', () => seen.length === 4 && dead.length === 1);
  await sleep(600);
  assert.deepEqual(seen.map(([payload]) => payload), [1, 2, 3, 1]);
  assert.ok(seen[3][1] - seen[0][1] >= 690, 'not before its delay');
  assert.deepEqual([dead[0].reason, dead[0].event.payload], ['this is no image', 2]);
  await stream.close();
  await letters.close();
});

on('what was handled when a client is closed does not come again', async (t, join, subject) => {
  const [writer, reader] = [await join({ name: 'writer' }), await join({ name: 'reader' })];
  await Promise.all(Array.from({ length: 100 }, (_, n) => writer.publish(subject, n)));
  const options = { start: 'oldest', ack: 'manual', consumer: `closed${run}` };
  const [seen, again] = [[], []];
  await new Promise((enough) => {
    reader.subscribe(subject, options, ({ payload }) => seen.push(payload) === 60 && setTimeout(enough));
  });
  const handled = seen.length;
  await reader.close();
  const stream = writer.subscribe(subject, options, ({ payload }) => again.push(payload));
  await until('the rest', () => handled + again.length >= 100);
  await sleep(200);
  assert.equal(new Set([...seen, ...again]).size, seen.length + again.length, 'no event came twice');
  await stream.close();
});

on('a slow handler without acknowledgements has each event once', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  const seen = [];
  await Promise.all(Array.from({ length: 200 }, (_, n) => shop.publish(subject, n)));
  const options = { start: 'oldest', queueMax: 20 };
  const stream = shop.subscribe(subject, options, ({ index }) => (seen.push(index), sleep(1)));
  await until('all', () => seen.length >= 200);
  await sleep(100);
  assert.deepEqual(seen, [...new Set(seen)].sort((a, b) => a - b));
  assert.equal(seen.length, 200);
  await stream.close();
});

on('a durable consumer goes on where it was', async (t, join, subject) => {
  const shop = await join({ name: 'shop' });
  const seen = [];
  const options = { start: 'oldest', ack: 'manual', consumer: `c${run}` };
  const subscribe = () => shop.subscribe(subject, options, ({ payload }) => seen.push(payload));
  await shop.publish(subject, 1);
  const first = subscribe();
  await until('one', () => seen.length === 1);
  await first.close();
  await shop.publish(subject, 2);
  const second = subscribe();
  await until('two', () => seen.length === 2);
  await second.close();
  assert.deepEqual(seen, [1, 2]);
});

on('each event goes to one member of a group', async (t, join, subject) => {
  const seen = [[], []];
  const options = { start: 'oldest', ack: 'manual', group: `g${run}` };
  const members = await Promise.all([join({ name: 'one' }), join({ name: 'two' })]);
  const follow = (member, at) => member.subscribe(subject, options, ({ payload }) => seen[at].push(payload));
  const streams = members.map(follow);
  await Promise.all(streams.map(({ ready }) => ready));
  await Promise.all(Array.from({ length: 20 }, (_, n) => members[0].publish(subject, n)));
  await until('all', () => seen[0].length + seen[1].length >= 20);
  await sleep(200);
  assert.deepEqual(seen.flat().sort((a, b) => a - b), Array.from({ length: 20 }, (_, n) => n));
});

on('a subscription that the bus refuses has ended', async (t, join) => {
  const shop = await join({ name: 'shop' });
  const told = next(shop, 'error');
  const stream = shop.subscribe('*.x', {}, () => {});
  await assert.rejects(stream.ready);
  await stream.ended;
  await told;
});

on('over nodes that are killed and stopped no event is missed or doubled', async (t) => {
  if (noBin) return t.skip(noBin);
  const port = await freePort();
  let own = await start(port);
  t.after(() => own.kill());
  const join = clients(t, own.web);
  const [writer, reader] = [await join({ name: 'writer' }), await join({ name: 'reader' })];
  const seen = [];
  const slow = async ({ payload }) => {
    await sleep(5);
    seen.push(payload);
  };
  await reader.subscribe('app.>', { start: 'oldest' }, slow).ready;
  let stored = 0;
  const publish = async (n) => {
    for (;;) {
      try {
        return await writer.publish('app.numbers', n, { key: `k${n}` });
      } catch (error) {
        // What became of one that was lost is found out with its key.
        if (!error.retryable) return;
      }
    }
  };
  const writes = (async () => {
    for (; stored < 300; stored += 1) await publish(stored);
  })();
  for (const [some, end] of [[60, 'kill'], [140, 'stop']]) {
    await until(`${some} events`, () => seen.length > some);
    await own[end]();
    own = await start(port, own.data);
  }
  await writes;
  await until('all', () => seen.length >= 300);
  await sleep(300);
  assert.deepEqual(seen, Array.from({ length: 300 }, (_, n) => n));
});

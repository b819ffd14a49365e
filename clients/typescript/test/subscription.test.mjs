/** Publish and subscribe against a door that does what the test says. No node is needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, open } from './support/door.mjs';
import { next, sleep, until } from './support/node.mjs';

const event = (n, more) => ({ id: `e_${n}`, index: n, subject: 'app.x', created_at: '', payload: n, ...more });

/** Takes the next `ack` and answers it. */
async function acked(peer) {
  const { type, id, event_id } = await peer.next('ack');
  peer.send({ type: 'acked', id, event_id, in_flight: true });
  return { type, id, event_id };
}

/** A client that follows the log; `seen` is what its handler got, `begin` takes the next `subscribe`. */
async function follow(t, options, handler = () => {}) {
  const door = await open(t);
  const me = client(t, { url: door.url, timeoutMs: 500 });
  const seen = [];
  const stream = me.subscribe('app.>', options, (event) => (seen.push(event.payload), handler(event)));
  const begin = async (peer) => {
    const asked = await peer.next('subscribe');
    peer.send({ type: 'subscribed', id: asked.id, consumer_id: 'c_1' });
    return asked;
  };
  const peer = await door.accept();
  const { id, ...asked } = await begin(peer);
  await stream.ready;
  const tell = (n, more) => peer.send({ type: 'delivery', id, event: event(n, more) });
  return { door, me, seen, stream, begin, peer, id, asked, tell };
}

test('a publish tells where the event is', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const published = me.publish('app.x', { n: 1 }, { key: 'k', traceId: 't' });
  const peer = await door.accept();
  const { id, ...asked } = await peer.next('publish');
  assert.deepEqual(asked, { type: 'publish', subject: 'app.x', payload: { n: 1 }, key: 'k', trace_id: 't' });
  peer.send({ type: 'published', id, event_id: 'e_1', index: 1, created_at: '2026-01-01T00:00:00Z' });
  const first = { eventId: 'e_1', index: 1, createdAt: '2026-01-01T00:00:00Z' };
  assert.deepEqual(await published, { ...first, duplicate: false });
  const again = me.publish('app.x', 1, { key: 'k' });
  const data = { event_id: 'e_1', index: 1, created_at: '2026-01-01T00:00:00Z' };
  const conflict = { type: 'error', code: 'conflict', message: 'key was processed before', retryable: false };
  peer.send({ ...conflict, id: (await peer.next('publish')).id, data });
  assert.deepEqual(await again, { ...first, duplicate: true });
  const refused = me.publish('app.x', 1, { key: 'k' });
  const { id: second } = await peer.next('publish');
  peer.send({ ...conflict, id: second }); // Of a node that does not say which event it was.
  await assert.rejects(refused, { code: 'conflict', id: second });
  const lost = me.publish('app.x', 1);
  await peer.next('publish');
  peer.cut();
  await assert.rejects(lost, { code: 'connection_lost', retryable: true });
});

test('a subscription says what its options say', async (t) => {
  const same = { start: 'oldest', ack: 'manual', consumer: 'c', group: 'g' };
  const { asked } = await follow(t, { ...same, redelivery: '1m30s', redeliveryCount: 2 });
  const frame = { type: 'subscribe', subject: 'app.>', ...same };
  assert.deepEqual(asked, { ...frame, redelivery: '1m30s', redelivery_count: 2 });
  const { asked: older } = await follow(t, { ...same, redeliveryMs: 100, maxDeliveries: 2 });
  assert.deepEqual(older, { ...frame, redelivery: 100, redelivery_count: 2 });
});

test('which events are wanted, and their order, are said again after a loss; where it began is not', async (t) => {
  const options = { since: '1h', headers: { tenant: 'acme' }, orderBy: '/customer/id', ack: 'manual' };
  const { door, begin, peer, tell, asked, seen } = await follow(t, options);
  const wanted = { headers: { tenant: 'acme' }, order_by: '/customer/id', ack: 'manual' };
  const same = { type: 'subscribe', subject: 'app.>', ...wanted };
  assert.deepEqual(asked, { ...same, since: '1h' });
  tell(1);
  await until('it', () => seen.length === 1);
  await acked(peer);
  peer.cut();
  const { id, ...again } = await begin(await door.accept());
  assert.deepEqual(again, { ...same, start: 'e_1' });
});

test('after a loss it goes on behind the last event that was handled', async (t) => {
  let finish;
  const handler = ({ payload }) => payload === 3 && new Promise((resolve) => (finish = resolve));
  const { door, seen, begin, peer, id, tell, asked } = await follow(t, { start: 'oldest' }, handler);
  assert.equal(asked.start, 'oldest');
  [1, 2, 3, 4].forEach((n) => tell(n));
  await until('three', () => seen.length === 3);
  peer.cut();
  const second = await door.accept();
  await sleep(30);
  assert.equal(second.frames.length, 0, 'the handler is at work');
  finish();
  const again = await begin(second);
  assert.equal(again.start, 'e_4');
  assert.notEqual(again.id, id);
  second.send({ type: 'delivery', id, event: event(99) });
  second.send({ type: 'delivery', id: again.id, event: event(5) });
  await until('five', () => seen.length === 5);
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  second.cut();
  assert.equal((await begin(await door.accept())).start, 'e_5');
});

test('what is stored nowhere is not begun behind', async (t) => {
  const { door, seen, begin, peer, tell } = await follow(t, {});
  tell(1, { index: -1 });
  await until('it', () => seen.length === 1);
  peer.cut();
  assert.equal((await begin(await door.accept())).start, undefined);
});

test('with a name the bus knows the place', async (t) => {
  for (const options of [{ consumer: 'c' }, { group: 'g' }]) {
    const { door, seen, begin, peer, tell } = await follow(t, { ...options, start: 'oldest', ack: 'manual' });
    tell(1);
    await until('it', () => seen.length === 1);
    await acked(peer);
    peer.cut();
    const second = await door.accept();
    const again = await begin(second);
    assert.equal(again.start, 'oldest');
    // It was acknowledged, but that was lost.
    second.send({ type: 'delivery', id: again.id, event: event(1) });
    assert.equal((await acked(second)).event_id, 'e_1');
    assert.deepEqual(seen, [1]);
  }
});

test('an event is acknowledged when its handler is through, and not when it fails', async (t) => {
  let finish;
  let fails = true;
  const handler = ({ payload }) => {
    if (payload === 2 && fails) throw new Error('not yet');
    return payload === 1 && new Promise((resolve) => (finish = resolve));
  };
  const { me, seen, peer, id, tell } = await follow(t, { ack: 'manual' }, handler);
  tell(1);
  await until('it', () => finish);
  // Its time is over before the handler is.
  tell(1);
  await sleep(20);
  assert.equal(peer.frames.length, 0);
  finish();
  assert.deepEqual(await acked(peer), { type: 'ack', id, event_id: 'e_1' });
  const failed = next(me, 'error');
  tell(2);
  const { code, message } = await failed;
  assert.deepEqual([code, message], ['handler_failed', 'not yet']);
  fails = false;
  tell(2);
  assert.equal((await acked(peer)).event_id, 'e_2');
  assert.deepEqual(seen, [1, 2, 2]);
  const refused = next(me, 'error');
  tell(3);
  const { id: ack } = await peer.next('ack');
  peer.send({ type: 'error', id: ack, code: 'unavailable', message: 'not now', retryable: true });
  assert.equal((await refused).code, 'unavailable');
  // It comes again, and is only acknowledged.
  tell(3);
  await acked(peer);
  assert.deepEqual(seen, [1, 2, 2, 3]);
  assert.deepEqual(peer.frames, []);
});

test('what was begun over one connection is not acknowledged over the next', async (t) => {
  let finish;
  const handler = () => new Promise((resolve) => (finish = resolve));
  const { door, seen, begin, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' }, handler);
  tell(1);
  await until('it', () => finish);
  peer.cut();
  const second = await door.accept();
  await sleep(20);
  finish();
  const { id } = await begin(second);
  assert.deepEqual(second.frames, []);
  second.send({ type: 'delivery', id, event: event(1) });
  assert.deepEqual(await acked(second), { type: 'ack', id, event_id: 'e_1' });
  assert.deepEqual(seen, [1]);
});

test('without acknowledgements a handler that fails is reported, and the next event comes', async (t) => {
  const { me, door, seen, begin, peer, tell } = await follow(t, {}, () => Promise.reject(new Error('mine')));
  const failed = next(me, 'error');
  tell(1);
  tell(2);
  await failed;
  await until('both', () => seen.length === 2);
  peer.cut();
  assert.equal((await begin(await door.accept())).start, 'e_2');
});

test('close() ends it behind the handler at work', async (t) => {
  let finish;
  const handler = () => new Promise((resolve) => (finish = resolve));
  const { me, seen, stream, peer, id, tell } = await follow(t, { ack: 'manual' }, handler);
  tell(1);
  tell(2);
  await until('it', () => finish);
  const closed = stream.close();
  await sleep(20);
  assert.equal(peer.frames.length, 0);
  finish();
  const { event_id } = await peer.next('ack');
  await sleep(20);
  assert.equal(peer.frames.length, 0, 'an acknowledgement has its end first');
  peer.send({ type: 'acked', id, event_id });
  assert.deepEqual(await peer.next('unsubscribe'), { type: 'unsubscribe', id });
  peer.send({ type: 'unsubscribed', id });
  await closed;
  assert.equal(await stream.ended, undefined);
  tell(3);
  await stream.close();
  await sleep(20);
  assert.deepEqual([seen, peer.frames], [[1], []]);
  const early = me.subscribe('app.>', {}, () => {});
  await early.close();
  await assert.rejects(early.ready, { code: 'closed' });
});

test('the bus may end it, with a reason', async (t) => {
  const { door, stream, peer, id } = await follow(t, {});
  peer.send({ type: 'unsubscribed', id, reason: 'another connection is this consumer now' });
  assert.equal(await stream.ended, 'another connection is this consumer now');
  peer.cut();
  const second = await door.accept();
  await sleep(20);
  assert.deepEqual(second.frames, []);
});

test('a node that stops ends its connection, not the subscription', async (t) => {
  const { door, begin, peer, id } = await follow(t, { start: 'oldest' });
  const stopping = [{ type: 'unsubscribed', reason: 'node stopping' }, { type: 'disconnect', code: 1001 }];
  stopping.forEach((frame) => peer.send({ ...frame, id }));
  peer.close(1001);
  const second = await door.accept();
  const again = await begin(second);
  stopping.reverse().forEach((frame) => second.send({ ...frame, id: again.id }));
  second.close(1001);
  await begin(await door.accept());
});

test('a refusal ends it, unless it will pass', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url, timeoutMs: 300 });
  const peer = await door.accept();
  await me.ready();
  const told = next(me, 'error');
  const refused = me.subscribe('app.*.>.x', {}, () => {});
  const first = await peer.next('subscribe');
  peer.send({ type: 'error', id: first.id, code: 'bad_message', message: 'subject: no', retryable: false });
  await assert.rejects(refused.ready, { code: 'bad_message' });
  assert.equal(await refused.ended, 'bad_message');
  assert.equal((await told).code, 'bad_message');
  const passes = me.subscribe('app.>', {}, () => {});
  const second = await peer.next('subscribe');
  peer.send({ type: 'error', id: second.id, code: 'unavailable', message: 'not now', retryable: true });
  // To this one nothing is said.
  const third = await peer.next('subscribe');
  let fourth = peer.next('subscribe');
  assert.equal((await peer.next('unsubscribe')).id, third.id);
  fourth = await fourth;
  peer.send({ type: 'subscribed', id: fourth.id, consumer_id: 'c_1' });
  await passes.ready;
});

test('the end of the client is the end of its subscriptions', async (t) => {
  const { me, stream, peer } = await follow(t, {});
  peer.close(4410);
  assert.equal(await stream.ended, 'closed');
  const late = me.subscribe('app.>', {}, () => {});
  await assert.rejects(late.ready, { code: 'closed' });
  assert.equal(await late.ended, 'closed');
  const other = await follow(t, {});
  const closed = other.me.close();
  assert.equal(await other.stream.ended, undefined);
  await other.peer.next('disconnect');
  other.peer.close(1000);
  await closed;
});

/** Answers the next `ack`, of one event or of many; `missed` are those that the stream did not wait for. */
async function answered(peer, missed = []) {
  const { type, id, event_id, event_ids, ...outcome } = await peer.next('ack');
  if (event_ids) peer.send({ type: 'acked', id, count: event_ids.length - missed.length, not_in_flight: missed });
  else peer.send({ type: 'acked', id, event_id, in_flight: !missed.includes(event_id) });
  return { ids: event_ids ?? [event_id], ...outcome };
}

test('a handler says that an event is to come again, never, or later', async (t) => {
  const told = [];
  const handler = async (event) => {
    const { payload } = event;
    if (payload === 1) told.push(await event.nack('30s'));
    if (payload === 2) told.push(await event.nack());
    if (payload === 3) told.push(await event.reject('no image'));
    if (payload === 4) told.push(await event.inProgress());
    if (payload === 5) told.push(await event.nack(1500));
  };
  const { seen, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' }, handler);
  for (let n = 1; n <= 5; n += 1) tell(n);
  assert.deepEqual(await answered(peer), { ids: ['e_1'], action: 'nack', delay: '30s' });
  assert.deepEqual(await answered(peer), { ids: ['e_2'], action: 'nack' });
  assert.deepEqual(await answered(peer, ['e_3']), { ids: ['e_3'], action: 'reject', reason: 'no image' });
  assert.deepEqual(await answered(peer), { ids: ['e_4'], action: 'in_progress' });
  assert.deepEqual(await answered(peer), { ids: ['e_4'] }, 'it is acknowledged all the same');
  assert.deepEqual(await answered(peer), { ids: ['e_5'], action: 'nack', delay: 1500 });
  await until('the last', () => told.length === 5);
  assert.deepEqual(told, [true, true, false, true, true]);
  assert.deepEqual([seen, peer.frames], [[1, 2, 3, 4, 5], []]);
});

test('what a handler says again comes again, also while the handler is at work', async (t) => {
  let finish;
  const handler = (event) => {
    if (finish) return undefined;
    void event.nack();
    return new Promise((resolve) => (finish = resolve));
  };
  const { seen, peer, tell } = await follow(t, { ack: 'manual', group: 'g' }, handler);
  tell(1);
  assert.deepEqual(await answered(peer), { ids: ['e_1'], action: 'nack' });
  tell(1);
  finish();
  assert.deepEqual(await answered(peer), { ids: ['e_1'] });
  assert.deepEqual(seen, [1, 1]);
});

test('a word that the bus refuses is the event error, and the handler hears no', async (t) => {
  const told = [];
  const handler = async (event) => told.push(await event.nack('soon'));
  const { me, peer, id, tell } = await follow(t, { ack: 'manual' }, handler);
  const failed = next(me, 'error');
  tell(1);
  await peer.next('ack');
  peer.send({ type: 'error', id, code: 'bad_message', message: 'delay: expected a time', retryable: false });
  assert.equal((await failed).code, 'bad_message');
  await until('no', () => told.length === 1);
  assert.deepEqual([told, peer.frames], [[false], []]);
});

test('what is handled while an answer is on its way is acknowledged together', async (t) => {
  const { seen, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' });
  tell(1);
  await until('the first', () => peer.frames.length === 1);
  for (let n = 2; n <= 40; n += 1) tell(n);
  await until('all', () => seen.length === 40);
  await sleep(20);
  assert.equal(peer.frames.length, 1, 'one at a time');
  assert.deepEqual(await answered(peer), { ids: ['e_1'] });
  const rest = await answered(peer);
  assert.deepEqual(rest, { ids: Array.from({ length: 39 }, (_, n) => `e_${n + 2}`) });
});

test('copies of events that wait for the handler are not handled twice', async (t) => {
  let finish;
  const handler = ({ payload }) => payload === 1 && new Promise((resolve) => (finish = resolve));
  const { seen, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' }, handler);
  for (const n of [1, 2, 3, 1, 2, 3]) tell(n);
  await until('it', () => finish);
  await sleep(20);
  finish();
  await answered(peer);
  await answered(peer);
  await sleep(20);
  assert.deepEqual([seen, peer.frames], [[1, 2, 3], []]);
});

test('events that wait when the connection is lost are left to the next one', async (t) => {
  let finish;
  const handler = ({ payload }) => payload === 1 && new Promise((resolve) => (finish = resolve));
  const { door, seen, begin, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' }, handler);
  for (const n of [1, 2, 3]) tell(n);
  await until('it', () => finish);
  peer.cut();
  const second = await door.accept();
  finish();
  const { id } = await begin(second);
  assert.deepEqual(seen, [1]);
  for (const n of [1, 2, 3]) second.send({ type: 'delivery', id, event: event(n) });
  assert.deepEqual((await answered(second)).ids, ['e_1']);
  assert.deepEqual((await answered(second)).ids, ['e_2', 'e_3']);
  assert.deepEqual(seen, [1, 2, 3], 'each once, the first was only acknowledged again');
});

test('a client that is closed has its acknowledgements answered first', async (t) => {
  const { me, stream, seen, peer, tell } = await follow(t, { ack: 'manual', consumer: 'c' });
  for (const n of [1, 2, 3]) tell(n);
  await until('all', () => seen.length === 3 && peer.frames.length === 1);
  const closed = me.close();
  const late = assert.rejects(me.call('other:do'), { code: 'closed' });
  await sleep(20);
  assert.deepEqual(peer.frames.map(({ type }) => type), ['ack'], 'nothing else, and no end yet');
  assert.deepEqual((await answered(peer)).ids, ['e_1']);
  assert.deepEqual((await answered(peer)).ids, ['e_2', 'e_3']);
  await peer.next('disconnect');
  peer.close(1000);
  await Promise.all([closed, late, stream.ended]);
});

test('without acknowledgements so many events wait, and then the node holds the rest back', async (t) => {
  let finish;
  const handler = ({ payload }) => payload === 1 && new Promise((resolve) => (finish = resolve));
  const { seen, begin, peer, id, tell } = await follow(t, { start: 'oldest', queueMax: 3 }, handler);
  for (const n of [1, 2, 3, 4]) tell(n);
  assert.deepEqual(await peer.next('unsubscribe'), { type: 'unsubscribe', id }, 'once, with events on their way');
  peer.send({ type: 'unsubscribed', id });
  await sleep(20);
  assert.deepEqual([seen, peer.frames], [[1], []], 'the handler has not caught up');
  finish();
  const again = await begin(peer);
  assert.equal(again.start, 'e_4');
  peer.send({ type: 'delivery', id: again.id, event: event(5) });
  await until('five', () => seen.length === 5);
  assert.deepEqual([seen, peer.frames], [[1, 2, 3, 4, 5], []]);
});

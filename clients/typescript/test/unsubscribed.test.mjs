/** Why a stream has ended, by `code`: of nodes that tell it. No node is needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, open } from './support/door.mjs';
import { next, sleep } from './support/node.mjs';

/** A subscription of a client, and what lets it begin at a peer. */
async function stream(t, options = {}) {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const seen = [];
  const stream = me.subscribe('app.>', options, ({ payload }) => seen.push(payload));
  const begin = async (peer) => {
    const { id, start } = await peer.next('subscribe');
    peer.send({ type: 'subscribed', id, consumer_id: 'c_1' });
    return { id, start };
  };
  return { door, me, stream, begin, seen };
}

const delivery = (id, n) => {
  const event = { id: `e_${n}`, index: n, subject: 'app.x', created_at: '', payload: n };
  return { type: 'delivery', id, event };
};

test('a node that stops ends its streams and then its connections: they go on elsewhere', async (t) => {
  const { door, stream: one, begin } = await stream(t);
  const first = await door.accept();
  const { id } = await begin(first);
  first.send({ type: 'unsubscribed', id, code: 'node_stopping', retryable: true, reason: 'whatever it says' });
  first.close(1001);
  const second = await door.accept();
  await begin(second);
  await one.ready;
});

test('a stream that ended for a reason that passes goes on over the same connection', async (t) => {
  const { door, begin, seen, me } = await stream(t, { start: 'oldest' });
  const peer = await door.accept();
  const ends = [
    { code: 'node_stopping', reason: 'node stopping' }, { code: 'ended', reason: 'the stream ended' },
    { code: 'failed', retryable: true, reason: 'a block cannot be read' }, { reason: 'node stopping' },
  ];
  let { id } = await begin(peer);
  for (const [n, end] of ends.entries()) {
    peer.send(delivery(id, n + 1));
    peer.send({ type: 'unsubscribed', id, ...end });
    const again = await begin(peer);
    assert.equal(again.start, `e_${n + 1}`, 'behind what was handled');
    assert.notEqual(again.id, id);
    ({ id } = again);
  }
  assert.deepEqual(seen, [1, 2, 3, 4]);
  await me.close();
});

test('attempts that are in vain come later and later', async (t) => {
  const { door, begin, me } = await stream(t);
  const waits = [];
  const backoff = me.backoff.bind(me);
  me.backoff = (failures) => (waits.push(failures), backoff(failures));
  const peer = await door.accept();
  for (let n = 0; n < 4; n += 1) {
    const { id } = await peer.next('subscribe');
    peer.send({ type: 'error', id, code: 'unavailable', message: 'no leader', retryable: true });
  }
  const { id } = await begin(peer);
  peer.send({ type: 'unsubscribed', id, code: 'ended', reason: 'the stream ended' });
  const again = await begin(peer);
  peer.send(delivery(again.id, 1));
  peer.send({ type: 'unsubscribed', id: again.id, code: 'ended', reason: 'the stream ended' });
  await begin(peer);
  assert.deepEqual(waits, [0, 1, 2, 3, 4, 0], 'an event begins the count anew');
});

test('ends that stay have a code', async (t) => {
  for (const end of [
    { code: 'taken_over', retryable: false, reason: 'another connection is this consumer now' },
    { code: 'deleted', reason: 'the consumer was deleted' },
    { code: 'ended', retryable: false, reason: 'as the node says' },
  ]) {
    const { door, stream: one, begin } = await stream(t, { consumer: 'c' });
    const peer = await door.accept();
    const { id } = await begin(peer);
    peer.send({ type: 'unsubscribed', id, ...end });
    assert.equal(await one.ended, end.reason);
    assert.equal(one.code, end.code);
    await sleep(50);
    assert.equal(peer.frames.length, 0, 'nothing is asked again');
  }
});

test('a command that nobody carries out is said to be so, but for a ping', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const peer = await door.accept();
  peer.send({ type: 'command', id: '1', command: 'restart', data: {} });
  assert.deepEqual(await peer.next('done'), { type: 'done', id: '1', handled: false });
  peer.send({ type: 'command', id: '2', command: 'ping', data: {} });
  assert.deepEqual(await peer.next('done'), { type: 'done', id: '2' });
  me.on('command', () => {});
  peer.send({ type: 'command', id: '3', command: 'restart', data: {} });
  assert.deepEqual(await peer.next('done'), { type: 'done', id: '3' });
});

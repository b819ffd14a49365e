/** Why a stream has ended, by `code`: of nodes that tell it. No node is needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, open } from './support/door.mjs';

test('a code says whether a stream goes on elsewhere', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const stream = me.subscribe('app.>', {}, () => {});
  const begin = async (peer) => {
    const { id } = await peer.next('subscribe');
    peer.send({ type: 'subscribed', id, consumer_id: 'c_1' });
    await stream.ready;
    return id;
  };
  const first = await door.accept();
  const stopping = { type: 'unsubscribed', id: await begin(first), code: 'node_stopping', reason: 'whatever it says' };
  first.send(stopping);
  first.close(1001);
  const second = await door.accept();
  const ended = { type: 'unsubscribed', id: await begin(second), code: 'ended', reason: 'node stopping' };
  second.send(ended);
  assert.equal(await stream.ended, 'node stopping');
});

/** The list of services: a snapshot, and the events behind it. No node is needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REGISTERED, client, open } from './support/door.mjs';

const event = (index, word, instance_id, methods = ['get'], more = {}) => ({
  type: 'event', event: `service-${word}`, index, instance_id, node: 'n1', at: '',
  service: { name: 'users', version: '2', methods, ...more },
});
const users = (methods, instances, more) => ({ name: 'users', version: '2', methods, instances, ...more });

test('a snapshot and the events behind it are the truth, also when it comes again', async (t) => {
  const door = await open(t);
  const me = client(t, { url: door.url });
  const { services } = me;
  const heard = [];
  for (const word of ['online', 'offline', 'connect', 'disconnect']) {
    me.on(word, ({ index }) => heard.push([word, index]));
  }
  const snapshot = [users(['get', 'old'], 2), { name: 'mail', version: '1', methods: [], instances: 1 }];
  const peer = await door.accept({ ...REGISTERED, services: snapshot });
  await me.ready();
  const told = async (frame, ...wanted) => {
    peer.send(frame);
    const call = me.call('a:b');
    const { id } = await peer.next('message');
    peer.send({ type: 'response', id });
    await call;
    assert.deepEqual(services.get('users'), ...wanted);
  };
  await told({ type: 'pong' }, users(['get', 'old'], 2));
  await told(event(10, 'connect', 'x'), users(['get', 'old'], 2));
  const other = { capabilities: [{ name: 'directory', actions: ['find'] }] };
  await told(event(11, 'connect', 'a', ['put'], other), users(['get', 'old', 'put'], 3, other));
  await told(event(12, 'disconnect', 'x', ['old']), users(['get', 'old', 'put'], 2, other));
  await told(event(13, 'disconnect', 'y'), users(['put'], 1, other));
  await told(event(13, 'disconnect', 'y'), users(['put'], 1, other));
  await told(event(14, 'connect', 'b', ['get']), users(['put', 'get'], 2));
  await told(event(15, 'disconnect', 'a'), users(['get'], 1));
  await told(event(16, 'disconnect', 'b'), users([], 0));
  await told(event(17, 'offline', 'b'), undefined);
  await told(event(18, 'connect', 'a', ['get']), users(['get'], 1));
  await told(event(19, 'online', 'a'), users(['get'], 1));
  const gone = ['connect', 'disconnect', 'disconnect'];
  const words = [...gone, ...gone, 'offline', 'connect', 'online'];
  assert.deepEqual(heard, words.map((word, at) => [word, 11 + at]));
  assert.equal(services.size, 2);
  peer.cut();
  await door.accept({ ...REGISTERED, index: 5, services: [users(['other'], 1)] });
  await me.ready();
  assert.equal(services, me.services);
  assert.deepEqual([...services], [['users', users(['other'], 1)]]);
});

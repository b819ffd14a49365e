// The ordinary scenarios of the npm package nats: nats_node.js URL...
const { connect, StringCodec, ErrorCode, headers } = require('nats');
const assert = require('node:assert');

const text = StringCodec();

async function main(servers) {
  const one = await connect({ servers, name: 'scenario' });
  const two = await connect({ servers });

  const got = one.subscribe('greet.*', { max: 1 });
  await one.flush();
  const named = headers();
  named.set('Who', 'two');
  two.publish('greet.joe', text.encode('hello'), { headers: named });
  for await (const message of got) {
    assert.deepStrictEqual([message.subject, text.decode(message.data), message.headers.get('Who')], ['greet.joe', 'hello', 'two']);
  }

  one.subscribe('echo', { callback: (_, message) => message.respond(text.encode(text.decode(message.data).toUpperCase())) });
  await one.flush();
  const answer = await two.request('echo', text.encode('abc'), { timeout: 5000 });
  assert.strictEqual(text.decode(answer.data), 'ABC');
  await assert.rejects(two.request('nobody', text.encode(''), { timeout: 5000 }), (error) => error.code === ErrorCode.NoResponders);

  const counts = { a: 0, b: 0 };
  one.subscribe('work', { queue: 'q', callback: () => { counts.a += 1; } });
  two.subscribe('work', { queue: 'q', callback: () => { counts.b += 1; } });
  await one.flush();
  await two.flush();
  for (let number = 0; number < 100; number += 1) one.publish('work');
  await one.flush();
  for (let tries = 0; tries < 100 && counts.a + counts.b < 100; tries += 1) await new Promise((done) => setTimeout(done, 50));
  assert.ok(counts.a + counts.b === 100 && Math.min(counts.a, counts.b) > 20, JSON.stringify(counts));

  const stream = one.jetstream();
  const first = await stream.publish('app.orders.paid', text.encode('{"n":1}'), { msgID: 'two' });
  assert.strictEqual(first.stream, 'app');
  const again = await stream.publish('app.orders.paid', text.encode('{"n":1}'), { msgID: 'two' });
  assert.deepStrictEqual([again.seq, again.duplicate], [first.seq, true]);
  const manager = await one.jetstreamManager();
  const info = await manager.streams.info('app');
  assert.ok(info.state.last_seq >= 1);

  await two.drain();
  await one.drain();
  console.log(JSON.stringify({ ok: true }));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});

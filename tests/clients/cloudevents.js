// The CloudEvents SDK for JavaScript: what it writes, in each of its modes, is what it reads back from a stream.
// Arguments: the URL of the event log, a namespace.
const assert = require('node:assert/strict');
const { CloudEvent, HTTP } = require('cloudevents');

const [url, namespace] = process.argv.slice(2);

const event = (id, more) => new CloudEvent({
  id, source: 'https://example.com/shop?b=c', type: `${namespace}.order.created`, subject: 'order/17',
  time: '2024-03-15T10:30:45.123Z', dataschema: 'https://example.com/order.json', tenant: 'acme', ...more,
});
const json = { datacontenttype: 'application/json', data: { order: 17, lines: [{ n: 1 }] } };
const text = { datacontenttype: 'text/plain', data: 'a line\nand another' };
const typed = { ...json, retries: 3, last: true, digits: '3' };

async function send({ headers, body }, query = '') {
  const answer = await fetch(`${url}/${query}`, { method: 'POST', headers, body });
  assert.equal(answer.status, 202, await answer.text());
  return answer.headers.get('x-bus-event-id');
}

// The events of a namespace from the first on, as the SDK reads them.
async function follow(count) {
  const headers = { accept: 'application/cloudevents+json' };
  const stop = new AbortController();
  const stream = await fetch(`${url}/?subject=${namespace}.>&start=oldest`, { headers, signal: stop.signal });
  assert.equal(stream.headers.get('content-type'), 'text/event-stream');
  const seen = [];
  let buffer = '';
  for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) {
    buffer += chunk;
    for (let end; (end = buffer.indexOf('\n\n')) >= 0; buffer = buffer.slice(end + 2)) {
      const lines = buffer.slice(0, end).split('\n').filter((line) => line.startsWith('data: '));
      if (!lines.length) continue;
      const body = lines.map((line) => line.slice(6)).join('\n');
      seen.push(HTTP.toEvent({ headers: { 'content-type': 'application/cloudevents+json' }, body }));
      if (seen.length === count) {
        stop.abort();
        return seen;
      }
    }
  }
  throw new Error(`the stream ended after ${seen.length} events`);
}

(async () => {
  const sent = [event('s-json', typed), event('s-text', text), event('b-json', json), event('b-text', text)];
  assert.equal(await send(HTTP.structured(sent[0])), 's-json');
  assert.equal(await send(HTTP.structured(sent[1])), 's-text');
  assert.equal(await send(HTTP.binary(sent[2])), 'b-json');
  assert.equal(await send(HTTP.binary(sent[3])), 'b-text');

  const batch = [event('a-1', typed), event('a-2', json)];
  const headers = { 'content-type': 'application/cloudevents-batch+json' };
  await send({ headers, body: JSON.stringify(batch) });
  sent.push(...batch);

  const bytes = event('bytes', { datacontenttype: 'application/octet-stream', data_base64: 'AAH/' });
  await send(HTTP.structured(bytes));

  const named = event('named', { ...json, type: 'OrderCreated' });
  await send(HTTP.structured(named), `?subject=${namespace}.named`);

  const seen = await follow(8);
  sent.forEach((one, at) => assert.deepEqual(seen[at].toJSON(), one.toJSON(), one.id));
  assert.deepEqual([...new Uint8Array(seen[6].data)], [0, 1, 255]);
  assert.equal(seen[6].datacontenttype, 'application/octet-stream');
  assert.deepEqual(seen[7].toJSON(), { ...named.toJSON(), rollbooksubject: `${namespace}.named` });
  seen.forEach((one) => assert.ok(one.validate()));
  console.log('all came back');
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

// A service of the npm package, until the input ends: nats_service.js URL
const { connect, StringCodec, ServiceError } = require('nats');

(async () => {
  const text = StringCodec();
  const client = await connect({ servers: process.argv[2] });
  const service = await client.services.add({ name: 'calculator', version: '1.2.3', description: 'doubles' });
  const group = service.addGroup('calc');
  group.addEndpoint('double', (error, message) => message.respond(text.encode(String(2 * Number(text.decode(message.data))))));
  group.addEndpoint('fail', (error, message) => message.respondError(418, 'no tea'));
  process.stdin.resume();
  process.stdin.on('end', async () => {
    await service.stop();
    await client.drain();
  });
})();

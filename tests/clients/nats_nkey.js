// A client of the npm package that signs with the seed in SEED: nats_nkey.js URL
const { connect, nkeyAuthenticator, StringCodec } = require('nats');

(async () => {
  const text = StringCodec();
  const authenticator = nkeyAuthenticator(text.encode(process.env.SEED));
  const client = await connect({ servers: process.argv[2], authenticator, reconnect: false });
  const orders = client.subscribe('orders.>');
  client.publish('orders.a', text.encode('signed'));
  for await (const message of orders) {
    console.log(text.decode(message.data));
    break;
  }
  await client.close();
})();

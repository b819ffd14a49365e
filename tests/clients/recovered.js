// A client whose connection breaks and that finds its state again, with what it missed. While it is away another
// client notifies. Usage: node recovered.js URL
"use strict";
const assert = require("node:assert/strict");
const { io } = require("socket.io-client-4");
const [url] = process.argv.slice(2);

const open = (name) => io(url, { auth: { appId: name, appName: name }, forceNew: true, transports: ["websocket"], reconnectionDelay: 300 });
const once = (socket, name) => new Promise((resolve) => socket.once(name, resolve));

(async () => {
  const [sender, receiver] = [open("sender"), open("receiver")];
  await Promise.all([once(sender, "connect"), once(receiver, "connect")]);
  assert.equal(receiver.recovered, false);
  for (const socket of [sender, receiver]) await socket.emitWithAck("bus:register", { id: socket.auth.appId });
  const heard = [];
  receiver.on("n", (n) => heard.push(n));
  const notify = (n) => sender.emitWithAck("bus:notify", { event: "n", data: n });
  let sent = 0;
  for (let n = 0; n < 5; n += 1) await notify(sent++);
  const id = receiver.id;
  for (let round = 0; round < 3; round += 1) {
    const back = once(receiver, "connect");
    receiver.io.engine.close();
    for (let n = 0; n < 5; n += 1) await notify(sent++);
    await back;
    assert.equal(receiver.recovered, true);
    assert.equal(receiver.id, id);
    await notify(-1);
    while (heard.at(-1) !== -1) await new Promise((resolve) => setTimeout(resolve, 10));
    heard.pop();
    assert.deepEqual(heard, Array.from({ length: sent }, (_, n) => n));
  }
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
setTimeout(() => { console.error("took too long"); process.exit(1); }, 15000);

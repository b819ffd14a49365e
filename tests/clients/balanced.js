// Clients behind a balancer that hands each TCP connection to the next node: polling only, WebSocket only, and
// polling that becomes WebSocket. Usage: node balanced.js URL
"use strict";
const assert = require("node:assert/strict");
const { io } = require("socket.io-client-4");
const url = process.argv[2];

const within = (what, promise, millis = 10_000) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited for ${what}`)), millis); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

async function client(name, transports) {
  const socket = io(url, { transports, forceNew: true, reconnection: false, auth: { appId: name } });
  const lost = new Promise((_, reject) => {
    socket.on("connect_error", (error) => reject(new Error(`${name}: ${error.message}`)));
    socket.on("disconnect", (reason) => reason === "io client disconnect" || reject(new Error(`${name}: ${reason}`)));
  });
  lost.catch((error) => { console.log(error.message); process.exit(1); });
  await within(`${name} to connect`, new Promise((resolve) => socket.on("connect", resolve)));
  const registered = await within(`${name} to register`, socket.emitWithAck("bus:register", { id: name, capabilities: [name] }));
  assert.equal(registered.success, true, JSON.stringify(registered));
  socket.on("bus:request", (request) =>
    socket.emit("bus:response", { requestId: request.requestId, success: true, data: { from: name, got: request.payload } }));
  return socket;
}

(async () => {
  const modes = [["polling"], ["websocket"], ["polling", "websocket"]];
  // Enough that each node has some of each kind.
  const names = [...Array(12).keys()].map((n) => `s${n}`);
  const sockets = await Promise.all(names.map((name, n) => client(name, modes[n % 3])));
  const big = "x".repeat(50_000);
  for (let round = 0; round < 5; round += 1) {
    await Promise.all(sockets.map(async (socket, n) => {
      const to = names[(n + 1 + round) % names.length];
      const bytes = Buffer.from([n, round, 255]);
      const answer = await within(`${names[n]} to hear of ${to}`, socket.emitWithAck("bus:request", { capability: to, payload: { n, big, bytes } }));
      assert.equal(answer.success, true, JSON.stringify(answer));
      assert.equal(answer.data.from, to);
      assert.equal(answer.data.got.big, big);
      assert.deepEqual(Buffer.from(answer.data.got.bytes), bytes);
    }));
  }
  const heard = sockets.slice(1).map((socket) => new Promise((resolve) => socket.once("all", resolve)));
  await sockets[0].emitWithAck("bus:notify", { event: "all", data: 7 });
  assert.deepEqual(await within("everybody to be notified", Promise.all(heard)), Array(11).fill(7));
  // Those that may, have become WebSockets meanwhile.
  const transports = sockets.map((socket) => socket.io.engine.transport.name);
  assert.deepEqual([...new Set(transports.filter((_, n) => n % 3 === 0))], ["polling"]);
  assert.deepEqual([...new Set(transports.filter((_, n) => n % 3 === 2))], ["websocket"]);
  sockets.forEach((socket) => socket.close());
  process.exit(0);
})().catch((error) => { console.log(error.stack); process.exit(1); });

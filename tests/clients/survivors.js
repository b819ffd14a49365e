// Two services that call each other for some time, whatever happens to the nodes they are on. They may miss a few
// answers, but must always find each other again. Usage: node survivors.js URL MILLIS
"use strict";
const { io } = require("socket.io-client-4");
const [url, millis] = process.argv.slice(2);

const PATIENCE = 8000;
const last = {};
const count = { answered: 0, failed: {} };

function service(name, other) {
  const socket = io(url, { query: { app: name }, auth: { appId: name, appName: name }, reconnectionDelay: 100, reconnectionDelayMax: 500 });
  const register = () => socket.emit("bus:register", { id: name, capabilities: [name] });
  socket.on("connect", register);
  socket.on("bus:reregister-request", register);
  socket.on("bus:request", (request, answer) => answer({ success: true, data: request.payload }));
  last[name] = Date.now();
  let n = 0;
  setInterval(async () => {
    if (!socket.connected) return;
    n += 1;
    const payload = `${name} ${n}`;
    const timeout = 1000;
    const response = await socket.timeout(2000).emitWithAck("bus:request", { capability: other, payload, timeout }).catch(() => null);
    if (response?.success && response.data === payload) {
      count.answered += 1;
      last[name] = Date.now();
    } else {
      const code = response?.error?.code ?? "no answer";
      count.failed[code] = (count.failed[code] ?? 0) + 1;
    }
  }, 20);
}

service("ping", "pong");
service("pong", "ping");
setInterval(() => {
  for (const [name, at] of Object.entries(last)) {
    if (Date.now() - at > PATIENCE) {
      console.log(`${name} has had no answer for ${PATIENCE} ms; ${JSON.stringify(count)}`);
      process.exit(1);
    }
  }
}, 100);
setTimeout(() => {
  console.log(JSON.stringify(count));
  process.exit(count.answered > 100 ? 0 : 1);
}, Number(millis));

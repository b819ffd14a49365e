// What programs with socket.io-client expect of the door, in three modes: polling only, WebSocket only, and
// polling that becomes WebSocket. Usage: node socketio.js URL PACKAGE
"use strict";
const assert = require("node:assert/strict");
const [url, library] = process.argv.slice(2);
const { io } = require(library);

const WITHIN = 3000;
const AUTH = { appId: "my_service", appName: "Mi Servicio ñ€😀", appPort: 3000 };
const MODES = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };

const within = (what, promise) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited for ${what}`)), WITHIN); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};
const once = (socket, name) => within(name, new Promise((resolve) => socket.once(name, (...args) => resolve(args))));
const ask = (socket, name, ...args) =>
  within(`ack of ${name}`, new Promise((resolve) => socket.emit(name, ...args, (...answer) => resolve(answer))));
const pause = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

const open = (mode, more = {}, path = "/") =>
  io(url + path, {
    transports: MODES[mode], forceNew: true, reconnection: false, query: { app: "My Service" }, auth: AUTH, ...more,
  });

async function connected(mode, more, path) {
  const socket = open(mode, more, path);
  const auth = once(socket, "auth");
  await once(socket, "connect");
  return [socket, (await auth)[0]];
}

const checks = {
  async "connects, and its auth arrives unchanged"(mode) {
    const [socket, auth] = await connected(mode);
    assert.deepEqual(auth, AUTH);
    assert.equal(typeof socket.id, "string");
    return socket;
  },
  async "the query of the handshake arrives"(mode) {
    const [socket] = await connected(mode);
    const [query] = await ask(socket, "query");
    assert.equal(query.app, "My Service");
    return socket;
  },
  async "several arguments come back as they went"(mode) {
    const [socket] = await connected(mode);
    const args = [{ a: "ñ€😀\u001e", b: [1, null, true] }, "x", 1.5];
    const back = once(socket, "message-back");
    socket.emit("message", ...args);
    assert.deepEqual(await back, args);
    return socket;
  },
  async "an acknowledgement carries its arguments"(mode) {
    const [socket] = await connected(mode);
    assert.deepEqual(await ask(socket, "message-with-ack", 1, { x: 2 }), [1, { x: 2 }]);
    return socket;
  },
  async "binary data goes both ways"(mode) {
    const [socket] = await connected(mode);
    const bytes = Buffer.from([1, 2, 3, 0, 255]);
    const back = once(socket, "message-back");
    socket.emit("message", bytes, { nested: { deep: bytes } });
    const [plain, object] = await back;
    assert.deepEqual(Buffer.from(plain), bytes);
    assert.deepEqual(Buffer.from(object.nested.deep), bytes);
    const [acked] = await ask(socket, "message-with-ack", bytes);
    assert.deepEqual(Buffer.from(acked), bytes);
    return socket;
  },
  async "the server can ask too"(mode) {
    const [socket] = await connected(mode);
    socket.on("question", (_number, answer) => answer("yes", 1));
    const answered = once(socket, "answered");
    socket.emit("ask-me");
    assert.deepEqual(await answered, [null, ["yes", 1]]);
    return socket;
  },
  async "two namespaces share a connection, each with its own auth"(mode) {
    const [socket] = await connected(mode);
    const custom = socket.io.socket("/custom", { auth: { k: 1 } });
    const auth = once(custom, "auth");
    assert.deepEqual(await auth, [{ k: 1 }]);
    custom.disconnect();
    assert.deepEqual(await ask(socket, "message-with-ack", 1), [1]);
    return socket;
  },
  async "an unknown namespace is refused"(mode) {
    const socket = open(mode, {}, "/random");
    const [error] = await once(socket, "connect_error");
    assert.equal(error.message, "Invalid namespace");
    return socket;
  },
  async "a refusal says why"(mode) {
    const socket = open(mode, { auth: { deny: true } });
    const [error] = await once(socket, "connect_error");
    assert.equal(error.message, "not authorized");
    assert.deepEqual(error.data, { code: "E1" });
    return socket;
  },
  async "who is sent away stays away"(mode) {
    const [socket] = await connected(mode, { reconnection: true, reconnectionDelay: 50 });
    const gone = once(socket, "disconnect");
    socket.emit("kick");
    assert.equal((await gone)[0], "io server disconnect");
    await pause(300);
    assert.equal(socket.connected, false);
    return socket;
  },
  async "whose connection ends comes back"(mode) {
    const [socket] = await connected(mode, { reconnection: true, reconnectionDelay: 50 });
    const before = socket.id;
    const gone = once(socket, "disconnect");
    socket.emit("drop");
    assert.match((await gone)[0], /^transport/);
    await once(socket, "connect");
    assert.notEqual(socket.id, before);
    return socket;
  },
  async "it stays over many heartbeats"(mode) {
    const [socket] = await connected(mode);
    await pause(1700);
    assert.deepEqual(await ask(socket, "message-with-ack", "still"), ["still"]);
    return socket;
  },
  async "a burst is answered whole and in order"(mode) {
    const [socket] = await connected(mode);
    const answers = [];
    for (let n = 0; n < 500; n += 1) socket.emit("message-with-ack", n, (back) => answers.push(back));
    await ask(socket, "message-with-ack", "last");
    assert.deepEqual(answers, [...Array(500).keys()]);
    return socket;
  },
  async "a large event is answered whole"(mode) {
    const [socket] = await connected(mode);
    const text = "x".repeat(900_000);
    assert.equal((await ask(socket, "message-with-ack", text))[0], text);
    return socket;
  },
  async "an event over the limit ends the connection"(mode) {
    const [socket] = await connected(mode);
    const gone = once(socket, "disconnect");
    socket.emit("message", "x".repeat(2_000_000));
    assert.match((await gone)[0], /^transport/);
    return socket;
  },
};

async function nothingIsLostDuringTheUpgrade() {
  const [socket] = await connected("upgrade");
  const back = [];
  socket.on("message-back", (n) => back.push(n));
  for (let n = 0; n < 300; n += 1) {
    socket.emit("message", n);
    await new Promise(setImmediate);
  }
  await pause(800);
  assert.equal(socket.io.engine.transport.name, "websocket");
  assert.deepEqual(back, [...Array(300).keys()]);
  return socket;
}

(async () => {
  let failed = 0;
  const check = async (name, run) => {
    try {
      (await run()).close();
    } catch (error) {
      failed += 1;
      console.log(`${library}: ${name}: ${error.stack}`);
    }
  };
  for (const mode of Object.keys(MODES)) {
    // Independent of each other, and mostly waiting.
    await Promise.all(Object.entries(checks).map(([name, run]) => check(`${mode}: ${name}`, () => run(mode))));
  }
  await check("nothing is lost during the upgrade", nothingIsLostDuringTheUpgrade);
  process.exit(failed === 0 ? 0 : 1);
})();

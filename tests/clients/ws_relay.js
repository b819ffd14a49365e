// The least that a service bus on Node's `ws` can be: what the limits of plain JSON services are compared with.
// Usage: node ws_relay.js; prints its port.
"use strict";
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
const services = new Map();
const pending = new Map();
server.on("connection", (socket) => {
  socket.send(JSON.stringify({ type: "connect" }));
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    switch (frame.type) {
      case undefined:
        if (frame.methods) services.set(frame.name, socket);
        socket.send(JSON.stringify({ type: "registered", name: frame.name }));
        break;
      case "message": {
        pending.set(frame.id, socket);
        services.get(frame.destination.split(":")[0])?.send(JSON.stringify(frame));
        break;
      }
      case "response": {
        const sender = pending.get(frame.id);
        pending.delete(frame.id);
        sender?.send(JSON.stringify(frame));
        break;
      }
      case "broadcast": {
        const text = JSON.stringify(frame);
        for (const other of server.clients) if (other !== socket) other.send(text);
        break;
      }
    }
  });
});
server.on("listening", () => console.log(server.address().port));

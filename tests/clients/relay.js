// The least that a service bus on Node's own socket.io server can be: what the limits are compared with.
// Usage: node relay.js; prints its port.
"use strict";
const http = require("node:http").createServer();
const { Server } = require("socket.io");

const io = new Server(http);
const providers = new Map();
const pending = new Map();
io.on("connection", (socket) => {
  socket.on("bus:register", (service, answer) => {
    for (const name of service.capabilities) providers.set(name, socket);
    socket.join("registered");
    answer({ success: true });
  });
  socket.on("bus:request", (request) => {
    pending.set(request.requestId, socket);
    providers.get(request.capability)?.emit("bus:request", request);
  });
  socket.on("bus:response", (response) => {
    const caller = pending.get(response.requestId);
    pending.delete(response.requestId);
    caller?.emit("bus:response", response);
  });
  socket.on("bus:notify", ({ event, data }, answer) => {
    socket.to("registered").emit(event, data);
    answer({ success: true });
  });
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));

// A client of the protocol before: refused with an error, never let in. Usage: node socketio_refused.js URL PACKAGE
"use strict";
const [url, library] = process.argv.slice(2);
const io = require(library);
const end = (code, why) => { console.log(why); process.exit(code); };

const socket = io(url, { reconnection: false });
socket.on("connect", () => end(1, "it was let in"));
for (const name of ["connect_error", "error"]) socket.on(name, () => end(0, `refused: ${name}`));
setTimeout(() => end(1, "nothing happened"), 5000);

/** A door that does what a test says: to see what the client sends, and to send it anything. */
import { WebSocketServer } from 'ws';
import { connect } from 'rollbook';
import { WebSocket, until } from './node.mjs';

export const REGISTERED = { type: 'registered', name: 'me', index: 10, services: [] };

/** One connection: `frames` are what came; `next` waits for one, `send` sends one, `close` ends it. */
function peer(socket, request) {
  const frames = [];
  socket.on('message', (data) => frames.push(JSON.parse(String(data))));
  const take = (type) => {
    const at = frames.findIndex((frame) => frame.type === type);
    return at < 0 ? undefined : frames.splice(at, 1)[0];
  };
  return {
    frames,
    request,
    send: (frame) => socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame)),
    close: (code) => socket.close(code),
    cut: () => socket.terminate(),
    async next(type) {
      let frame;
      await until(type, () => (frame = take(type)));
      return frame;
    },
  };
}

/** Opens a door; `accept` waits for the next connection and, unless told not to, registers it. */
export async function open(t) {
  const offered = (protocols) => [...protocols][0] ?? false;
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: offered });
  await new Promise((resolve) => server.on('listening', resolve));
  const peers = [];
  server.on('connection', (socket, request) => peers.push(peer(socket, request)));
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  const accept = async (registered = REGISTERED) => {
    await until('a connection', () => peers.length > 0);
    const one = peers.shift();
    if (!registered) return one;
    one.send({ type: 'connect', connection_id: 'c', node: 'n1', max_frame: 1000 });
    one.registration = await one.next('register');
    one.send(registered);
    return one;
  };
  return { url: `ws://127.0.0.1:${server.address().port}`, accept };
}

/** A client of doors that is closed when the test has ended. */
export function client(t, options) {
  const fast = { version: '1', backoff: { minMs: 5, maxMs: 20 }, WebSocket };
  const made = connect({ name: 'me', ...fast, ...options });
  t.after(() => made.close());
  return made;
}

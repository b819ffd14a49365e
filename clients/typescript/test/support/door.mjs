/** A door that does what a test says: to see what the client sends, and to send it anything. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { WebSocketServer } from 'ws';
import { connect } from 'rollbook';
import { WebSocket, folder, until } from './node.mjs';

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

/** A certificate that is its own CA, for the server at 127.0.0.1 and for clients; nothing where there is no openssl. */
export function certificate() {
  const [dir, name] = [folder(), ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']];
  const files = ['-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  try {
    execFileSync('openssl', ['req', '-x509', ...kind, ...name, ...files], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  return { cert: readFileSync(join(dir, 'cert.pem')), key: readFileSync(join(dir, 'key.pem')) };
}

/** Opens a door; `accept` waits for the next connection and, unless told not to, registers it. With `refuse`, which sees
 *  a request and may give a status, some do not come in; with `tls` it is an HTTPS server with these settings. */
export async function open(t, { refuse = () => undefined, tls } = {}) {
  const offered = (protocols) => [...protocols][0] ?? false;
  const verifyClient = ({ req }, done) => {
    const status = refuse(req);
    done(!status, status);
  };
  const web = tls && createServer(tls).listen(0, '127.0.0.1');
  const where = web ? { server: web } : { port: 0, host: '127.0.0.1' };
  const server = new WebSocketServer({ ...where, handleProtocols: offered, verifyClient });
  await new Promise((resolve) => (web ?? server).on('listening', resolve));
  const peers = [];
  server.on('connection', (socket, request) => peers.push(peer(socket, request)));
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
    web?.close();
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
  return { url: `${web ? 'wss' : 'ws'}://127.0.0.1:${server.address().port}`, accept };
}

/** A client of doors that is closed when the test has ended. */
export function client(t, options) {
  const fast = { version: '1', backoff: { minMs: 5, maxMs: 20 }, WebSocket };
  const made = connect({ name: 'me', ...fast, ...options });
  t.after(() => made.close());
  return made;
}

/** Nodes of rollbook for tests: one that is there (ROLLBOOK_WEB), or ones that are started (ROLLBOOK_BIN). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect } from 'rollbook';

const { ROLLBOOK_BIN: bin, ROLLBOOK_WEB: web } = process.env;

/** Of Node, or of `ws` where there is none. */
export const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket;
/** Reason to skip a test that talks to a node, one that kills nodes. */
export const noNode = bin || web ? false : 'neither ROLLBOOK_WEB nor ROLLBOOK_BIN is set';
export const noBin = bin ? false : 'ROLLBOOK_BIN is not set';

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A port that is free now. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

const folders = [];
process.on('exit', () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A folder that goes with this process. */
export function folder() {
  const made = mkdtempSync(join(tmpdir(), 'rollbook-ts-'));
  folders.push(made);
  return made;
}

/** Starts a node; `web` is its address, `kill` ends it without a word, `stop` in order. */
export async function start(port = 0, data = folder()) {
  const flags = ['--data', data, '--web', `127.0.0.1:${port}`, '--log', '127.0.0.1:0', '--peer', 'off'];
  const child = spawn(bin, ['serve', ...flags], { stdio: ['ignore', 'pipe', 'ignore'] });
  const gone = once(child, 'exit');
  let address;
  for await (const line of createInterface(child.stdout)) {
    address ??= /^web\s+(http:\S+)/.exec(line)?.[1];
    if (line === 'ready') break;
  }
  if (!address) throw new Error('the node did not start');
  const end = (signal) => async () => {
    child.kill(signal);
    await gone;
  };
  return { web: address, data, kill: end('SIGKILL'), stop: end('SIGTERM') };
}

/** The node of a test file. */
export async function theNode() {
  if (web) return { web, release: async () => {} };
  const node = await start();
  return { web: node.web, release: node.kill };
}

/** Connects clients, which are closed when the test has ended. */
export function clients(t, url) {
  return async (options) => {
    const client = connect({ url, version: '1.0.0', WebSocket, backoff: { minMs: 50, maxMs: 200 }, ...options });
    t.after(() => client.close());
    await client.ready();
    return client;
  };
}

/** The next event of that name for which `wanted` holds. */
export function next(client, name, wanted = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name} came`)), 15000);
    const off = client.on(name, (event) => {
      if (!wanted(event)) return;
      clearTimeout(timer);
      off();
      resolve(event);
    });
  });
}

/** Waits until something holds. */
export async function until(what, holds) {
  for (const end = Date.now() + 15000; Date.now() < end; await sleep(10)) if (await holds()) return;
  throw new Error(`not in time: ${what}`);
}

/** What is built, in a page of a browser: as plain modules, without a bundler. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { folder, noBin, sleep, start } from './support/node.mjs';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const programs = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const program = programs.find((path) => existsSync(path));
const skip = noBin || (program ? false : `there is no browser at ${programs}`);

const page = (web) => `<!doctype html><meta charset="utf-8"><title>page</title><script type="module">
  import { connect } from './index.js';
  const tell = (told) => fetch('/report', { method: 'POST', body: JSON.stringify(told) });
  try {
    const methods = { double: (n) => 2 * n };
    const page = connect({ url: '${web}', name: 'page', version: '1.0.0', methods });
    await page.ready();
    const seen = [];
    const stream = page.subscribe('app.>', { start: 'oldest', ack: 'manual' }, ({ payload }) => seen.push(payload));
    await stream.ready;
    await page.publish('app.x', 'event');
    const doubled = await page.call('page:double', 21);
    const { reason } = await page.call('nobody:x').catch((error) => error);
    while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    const services = [...page.services.keys()];
    await stream.close();
    await page.close();
    tell({ doubled, reason, services, seen });
  } catch (error) {
    tell({ error: String(error) });
  }
</script>`;

test('nothing that is built imports anything but its own files', async () => {
  for (const file of await readdir(dist)) {
    if (!file.endsWith('.js')) continue;
    const text = await readFile(join(dist, file), 'utf8');
    const imports = text.matchAll(/\b(?:from|import)\s*\(?['"]([^'"]+)['"]/g);
    for (const [, from] of imports) assert.match(from, /^\.\/\w+\.js$/, file);
    // What only Node has is looked up as a member of `globalThis`, where it may be missing.
    const code = text.replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, '');
    assert.doesNotMatch(code, /(?<![.\w])(?:process|Buffer|require|global|__dirname)\b(?!:)/, file);
  }
});

test('a page is a service', { skip, timeout: 120_000 }, async (t) => {
  let report;
  const told = new Promise((resolve) => (report = resolve));
  let web;
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') {
      let body = '';
      for await (const chunk of request) body += chunk;
      report(JSON.parse(body));
      return response.end();
    }
    const isPage = request.url === '/';
    response.setHeader('Content-Type', isPage ? 'text/html' : 'text/javascript');
    const text = isPage ? page(web) : await readFile(join(dist, request.url)).catch(() => undefined);
    response.writeHead(text === undefined ? 404 : 200).end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.closeAllConnections());
  t.after(() => server.close());
  const origin = `http://127.0.0.1:${server.address().port}`;
  process.env.ROLLBOOK_WEBSOCKET__ORIGINS = origin;
  const node = await start();
  t.after(() => node.kill());
  web = node.web;
  const profile = folder();
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
  const more = ['--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--remote-debugging-port=0'];
  const env = { ...process.env, HOME: profile };
  const args = [...flags, ...more, `--user-data-dir=${profile}`, `${origin}/`];
  const browser = spawn(program, args, { stdio: 'ignore', detached: true, env });
  t.after(async () => {
    process.kill(-browser.pid, 'SIGKILL');
    await once(browser, 'exit');
    // Its helpers end a little later, and write until then.
    await sleep(500);
  });
  assert.deepEqual(await told, { doubled: 42, reason: 'no_service', services: ['page'], seen: ['event'] });
});

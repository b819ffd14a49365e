/** Makes `dist` when this folder is installed or packed: by its own compiler, or by one that npm fetches. */
import { execSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

let compiler = 'npx --yes --package=typescript@5.9.3 tsc';
try {
  compiler = `"${process.execPath}" "${createRequire(import.meta.url).resolve('typescript/bin/tsc')}"`;
} catch {
  // What a program installs from a folder has no development dependencies.
}
execSync(`${compiler} -p .`, { cwd: fileURLToPath(new URL('.', import.meta.url)), stdio: 'inherit' });

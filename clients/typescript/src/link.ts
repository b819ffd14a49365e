/** Keeps one registered connection, over losses and over nodes, and what was asked over it. */
import { RollbookError, type Events, type Options, type RequestOptions, type SocketLike } from './types.js';

/** A JSON object of which only the type is known. */
export interface Frame { type: string; [member: string]: unknown }
/** Sends over the connection that it belongs to, for nothing when that has ended. Throws for what cannot be sent. */
export type Send = (frame: Frame) => void;
/** `expects`: type of its end; without one it ends when it is sent. */
interface Request { expects?: string; sent: boolean; begin(): void; settle(error: unknown, answer?: Frame): void }

/** What goes on over lost connections: is begun at each registration, and ended when nothing follows any more. */
export interface Stream {
  start(): Promise<void>; take(frame: Frame): void; end(reason?: string, error?: unknown): void;
  /** Resolved when what was said of events until now has its answers. */ said(): Promise<void>;
}

const TIMING = { minMs: 500, maxMs: 10_000, pingMs: 15_000, lostMs: 40_000 };
/** An id that no other message has; without `crypto`, which pages that are not secure have not. */
export const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
export const text = (value: unknown) => (typeof value === 'string' ? value : undefined);

/** The metadata with the process, when a dock of rollbook has started it: so the roll shows both as one. */
function withProcess(metadata?: object): object | undefined {
  const own: unknown = (globalThis as { process?: { env?: Record<string, string> } }).process?.env?.ROLLBOOK_PROCESS;
  return own ? { process: own, ...metadata } : metadata;
}

export abstract class Link {
  private readonly tls = tlsOf(this.options);
  /** That of browsers and of Node has no options for TLS. */
  private WebSocket: Options['WebSocket'] = this.options.WebSocket ?? (this.tls ? undefined : globalThis.WebSocket);
  private readonly urls = [this.options.url ?? [], this.options.urls ?? []].flat().map(address);
  private readonly timing = { ...TIMING, ...this.options.backoff, ...this.options.heartbeat };
  private readonly listeners = new Map<string, Set<(event: any) => void>>();
  private readonly pending = new Map<unknown, Request>();
  private socket?: SocketLike;
  private timer: ReturnType<typeof setTimeout>;
  private opening = false; // There is no registration yet.
  private closing = false;
  private transmit: Send = () => {};
  private frameMax = Infinity;
  private attempts = 0;
  private failures = 0;
  private refused?: RollbookError; // What the node said against the registration.
  private denied = false; // The node did not take the last token.
  /** Why nothing follows any more. @internal */ over?: RollbookError;
  /** The connection, while it takes anything: not when it is about to end. @internal */ live?: Send;
  /** What goes on over lost connections. @internal */ readonly streams = new Set<Stream>();

  constructor(protected readonly options: Options) {
    if (!this.urls.length) throw new TypeError('url or urls: the address of a node is needed');
    JSON.stringify(options.metadata); // Throws for what cannot be JSON.
    this.timer = setTimeout(() => this.open()); // Whoever made it has time to listen.
  }

  protected abstract hear(frame: Frame, send: Send): void; // What ends no request.

  /** Listens until the function that it returns is called. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void {
    const listeners = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  protected listens(name: keyof Events): boolean {
    return !!this.listeners.get(name)?.size;
  }

  /** What a listener throws is a rejection that nobody handles, and disturbs nobody else. */
  protected emit(name: keyof Events, event: unknown): void {
    for (const listener of this.listeners.get(name) ?? []) void (async () => listener(event))();
  }

  /** Tells of a failure that no promise tells of. @internal */
  readonly report = (error: unknown): void => {
    if (error instanceof RollbookError) return void this.emit('error', error);
    const message = error instanceof Error ? error.message : String(error);
    this.emit('error', new RollbookError('handler_failed', message, false, error));
  };

  /** Resolved when this client is registered; rejected when it has ended. */
  async ready(): Promise<void> {
    await this.ask();
  }

  /** Leaves: what is on its way may end, what was acknowledged has its answer, nothing new begins. Resolved when the
   *  connection has ended. */
  async close(): Promise<void> {
    if (this.over) return;
    for (const stream of this.streams) stream.end();
    this.closing = true;
    await Promise.all([...this.streams].map((stream) => stream.said()));
    if (this.over) return;
    this.live?.({ type: 'disconnect' });
    this.live = undefined;
    if (!this.socket || this.opening) this.end(1000, 'as asked');
    if (!this.over) await new Promise<unknown>((resolve) => this.on('closed', resolve));
  }

  /** Sends a frame, or nothing, as soon as there is a registration, and waits for the end. @internal */
  ask(frame?: Frame, expects?: string, { timeoutMs = this.options.timeoutMs ?? 30_000, signal }: RequestOptions = {}) {
    const id = text(frame?.id) ?? newId();
    return new Promise<Frame>((resolve, reject) => {
      if (this.over) throw this.over;
      signal?.throwIfAborted();
      const late = () => settle(new RollbookError('timeout', `no end within ${timeoutMs} ms`, false, undefined, id));
      const timer = frame && setTimeout(late, timeoutMs);
      const abort = () => settle(signal?.reason);
      signal?.addEventListener('abort', abort);
      const settle = (error: unknown, answer?: Frame) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.pending.delete(id);
        answer ? resolve(answer) : reject(error);
      };
      const begin = () => {
        request.sent = true;
        try {
          if (frame) this.transmit({ ...frame, id, timeout_ms: frame.responder ? timeoutMs : undefined });
          if (!expects) settle(undefined, { type: 'sent' });
        } catch (error) {
          settle(error);
        }
      };
      const request: Request = { expects, sent: false, begin, settle };
      this.pending.set(id, request);
      if (this.live && (!this.closing || expects === 'acked')) begin();
    });
  }

  private open(): void {
    if (!this.WebSocket) return void this.lookForOne();
    const [attempt, { token }] = [++this.attempts, this.options];
    [this.opening, this.frameMax] = [true, Infinity];
    if (typeof token !== 'function') return this.dial(this.WebSocket, token);
    this.watch(this.timing.pingMs, true); // A token that never comes is like a node that never speaks.
    const waits = () => attempt === this.attempts && this.opening;
    Promise.resolve().then(token).then(
      (fresh) => waits() && this.dial(this.WebSocket!, fresh),
      () => waits() && this.end(1006, 'the function `token` failed'), // What was thrown may tell the token.
    );
  }

  private dial(WebSocket: NonNullable<Options['WebSocket']>, token?: string): void {
    const { protocols = [] } = this.options;
    const offered = ['rollbook.v1', ...protocols, ...(token === undefined ? [] : [`bearer.${token}`])];
    try {
      const url = this.urls[(this.attempts - 1) % this.urls.length]!;
      const socket: SocketLike = this.tls ? new WebSocket(url, offered, this.tls) : new WebSocket(url, offered);
      socket.onmessage = (event: { data: unknown }) => this.take(parse(event.data));
      socket.onclose = (event: { code: number; reason: string }) => this.end(event.code, event.reason);
      socket.onerror = (event: { message?: unknown }) => this.end(1006, text(event.message) ?? '');
      this.socket = socket;
      this.transmit = (frame) => {
        const [json, max] = [JSON.stringify(frame), this.frameMax];
        if (new TextEncoder().encode(json).length > max) throw new RollbookError('too_large', `more than ${max} bytes`);
        if (socket === this.socket) socket.send(json);
      };
      this.watch(this.timing.pingMs, true); // The node speaks first.
    } catch { // What was thrown may tell the token.
      this.end(1006, 'no WebSocket can be made with this address, these subprotocols, this token');
    }
  }

  /** Node has a WebSocket from version 22 on; before that it is the one of the package `ws`, if that is there. */
  private async lookForOne(): Promise<void> {
    this.WebSocket = await ofPackage();
    if (this.over) return;
    if (this.WebSocket) return this.open();
    const what = this.tls ? 'ca, cert and key need the package ws: npm install ws, or pass its WebSocket'
      : 'there is no WebSocket: Node 22 has one; before that, npm install ws, or pass one as WebSocket';
    this.report((this.refused = new RollbookError('no_websocket', what)));
    this.end(1006, what, true);
  }

  private take(frame: Frame): void {
    const { type } = frame;
    const request = this.pending.get(frame.id);
    this.watch(this.timing.pingMs, false);
    if (type === 'connect' && this.opening) {
      const { name, version, methods = {}, instance } = this.options;
      const metadata = withProcess(this.options.metadata);
      this.transmit({ type: 'register', name, version, methods: Object.keys(methods), instance, metadata });
      this.frameMax = Number(frame.max_frame) || Infinity;
    } else if (type === 'registered' && this.opening) {
      [this.opening, this.live, this.failures, this.refused] = [false, this.transmit, 0, undefined];
      this.denied = false;
      for (const { begin } of this.pending.values()) begin();
      for (const stream of this.streams) void stream.start();
      this.hear(frame, this.transmit);
    } else if (type === 'disconnect') this.live = undefined;
    else if (request && type === request.expects) request.settle(undefined, frame);
    else if (request && (type === 'error' || type === 'unhandled')) request.settle(failure(frame));
    else if (type !== 'registered') this.hear(frame, this.transmit);
    if (type === 'error' && this.opening) this.refused = failure(frame);
  }

  /** After so much silence a sign of life is asked for; when one was `asked` for, the node is lost. */
  private watch(waitMs: number, asked: boolean): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (asked) return this.end(1006, 'no sign of life');
      this.transmit({ type: 'ping' });
      this.watch(this.timing.lostMs - this.timing.pingMs, true);
    }, waitMs);
  }

  /** A random wait, of which the bound doubles with each failure. @internal */
  backoff(failures: number): number {
    const { minMs, maxMs } = this.timing;
    return Math.random() * Math.min(maxMs, minMs * 2 ** failures);
  }

  /** The connection has ended, or is given up without waiting for the other side; for good when that is `hopeless`. */
  private end(code: number, reason: string, hopeless = false): void {
    const { socket } = this;
    clearTimeout(this.timer);
    [this.socket, this.live, this.opening] = [undefined, undefined, false];
    if (socket) [socket.onmessage, socket.onclose, socket.onerror] = [null, null, () => {}];
    socket?.close();
    // The principal is not, or no longer, known: another token may be, once.
    const denied = code === 4401 || (code === 1006 && /server response: 401$/.test(reason));
    const lastToken = denied && (this.denied || typeof this.options.token !== 'function');
    this.denied ||= denied;
    // Refused, not allowed, replaced, removed.
    const final = hopeless || this.closing || lastToken || [4400, 4403, 4409, 4410].includes(code);
    if (!final) this.timer = setTimeout(() => this.open(), this.backoff(this.failures++));
    const told = `the connection ${final ? 'has ended' : 'was lost'}: ${code} ${reason}`;
    const what = lastToken ? 'unauthorized' : final ? 'closed' : 'connection_lost';
    const lost = new RollbookError(what, told, !final, { code, reason });
    if (final) this.over = (!this.closing && this.refused) || lost;
    // Nobody knows what becomes of what was sent; what was not goes over the next connection.
    for (const { sent, settle } of this.pending.values()) if (sent || final) settle(this.over ?? lost);
    if (!final) return this.report(lost);
    for (const stream of this.streams) stream.end('closed', this.over);
    this.emit('closed', { code, reason });
  }
}

/** What TLS needs beside an address, or nothing. */
function tlsOf({ ca, cert, key }: Options): object | undefined {
  return ca || cert || key ? { ca, cert, key } : undefined;
}

/** `http` is `ws`, and no path is `/ws`. Throws a TypeError when it is no address. */
function address(url: string): string {
  const parsed = new URL(url.replace(/^http/i, 'ws'));
  if (parsed.pathname === '/') parsed.pathname = '/ws';
  return parsed.href;
}

/** The WebSocket of the package `ws`, as this library or the program has it. By name: no bundler is to look for it. */
async function ofPackage(): Promise<Options['WebSocket']> {
  const [ws, module, path] = ['ws', 'node:module', 'node:path'];
  try {
    return (await import(ws)).WebSocket;
  } catch {
    try { // A library that is linked finds what stands beside itself, not beside the program.
      const [{ createRequire }, { resolve }] = [await import(module), await import(path)];
      return createRequire(resolve('program.js'))(ws).WebSocket;
    } catch {
      return undefined;
    }
  }
}

/** Reads a frame; what is none has no type. */
function parse(data: unknown): Frame {
  try {
    return { type: '', ...JSON.parse(String(data)) };
  } catch {
    return { type: '' };
  }
}

/** The error that a frame `error` or `unhandled` tells of. */
export function failure({ type, id, destination, reason, code, message, retryable, data }: Frame): RollbookError {
  const [fallback, told] = type === 'error' ? ['internal', ''] : ['unhandled', `${destination}: ${reason}`];
  const passes = retryable === true || reason === 'unreachable' || reason === 'overloaded';
  return new RollbookError(text(code) ?? fallback, text(message) ?? told, passes, data, text(id), text(reason));
}

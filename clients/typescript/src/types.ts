/** What programs say to this client and hear from it. Members of frames are named as in the protocol. */

/** What went wrong. `retryable`: the same again may succeed. `id`: of the request. `reason`: why it is `unhandled`. */
export class RollbookError extends Error {
  override readonly name = 'RollbookError';
  constructor(
    readonly code: string, message: string, readonly retryable = false, readonly data?: unknown,
    readonly id?: string, readonly reason?: string,
  ) {
    super(message);
  }
}

/** As much of a WebSocket as is needed: that of browsers, of Node, of `ws`. */
export interface SocketLike { onmessage: any; onclose: any; onerror: any; send(data: string): void; close(): void }
/** What a file in PEM holds. */
export type Pem = string | Uint8Array;
export interface Options {
  /** `ws://host:7440/ws`; `http` will do, and so will no path. */ url?: string;
  /** Several nodes: each attempt goes to the next one. */ urls?: string[];
  name: string; version: string;
  /** What others may call, by name; without any this is a consumer. */ methods?: Record<string, Method>;
  /** Id of this instance, kept over reconnects; else the node makes one each time. */ instance?: string;
  /** Shown to operators; at most 16 KiB of JSON. */ metadata?: object;
  /** Subprotocols to offer. */ protocols?: string[];
  /** Who this is: a token or JWT, or a function that is asked at each connect, so that it can be another one. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** In Node: trusted CAs, and certificate and key of this client, as PEM; needs the package `ws`. */
  ca?: Pem | Pem[]; cert?: Pem; key?: Pem;
  /** How long a request may take, milliseconds, 1 to 600000; 30000 unless said. */ timeoutMs?: number;
  /** Bounds of the wait before an attempt; 500 and 10000 unless said. */ backoff?: { minMs?: number; maxMs?: number };
  /** Silence until a ping, and until a loss; 15000 and 40000. */ heartbeat?: { pingMs?: number; lostMs?: number };
  /** Does what is ordered; unless it throws, its end acknowledges. Without it, who listens to `command` does that. */
  onCommand?: (command: Command) => unknown;
  /** In place of that of browsers, of Node 22 or of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[], options?: any) => SocketLike;
}
/** What it returns is the response; what it throws an error, with its `code`, `message`, `retryable` and `data`. */
export type Method = (payload: any, context: Context) => unknown;
/** Of a message, beside its payload. `consumer`: who sent it. `wanted`: somebody waits for the result. */
export interface Context {
  id: string; destination: string; method: string; consumer: string; traceparent?: string; wanted: boolean;
}
/** What the operator orders: `ping`, `restart` or `shutdown`. */
export interface Command { id: string; command: string; data: unknown }

/** `timeoutMs` counts the wait for a connection as well. */
export interface RequestOptions { timeoutMs?: number; signal?: AbortSignal }
/** `key`: for the strategy `sticky`, the same key goes to the same instance. `traceparent`: W3C Trace Context. */
export interface MessageOptions extends RequestOptions { key?: string; traceparent?: string }
/** Of an event, by name: a value, or those of a name that has many. Letter case does not tell names apart. */
export type Headers = Record<string, string | string[]>;
/** `key`: stored once per subject, so that a publish whose end nobody knows can be repeated. */
export interface PublishOptions extends RequestOptions { key?: string; traceId?: string; headers?: Headers }
export interface Published { eventId: string; index: number; createdAt: string; /** Stored before. */ duplicate: boolean }
/** `start`: `oldest`, `newest` (unless said), a time, or the id of an event to begin behind. `ack`: an event comes
 *  again until its handler is through. `consumer`: the bus keeps the place under this name. `group`: each event to one member. */
export interface SubscribeOptions {
  start?: string; ack?: 'manual'; consumer?: string; group?: string;
  /** In place of `start`: how long ago to begin, as `'1h'`, or milliseconds. */ since?: string | number;
  /** Only events that have these headers. */ headers?: Record<string, string>;
  /** With `ack`: events of the same key one after the other. `'subject'`, `'header:NAME'` or a JSON pointer into the
   *  payload. */
  orderBy?: string;
  /** How long to wait for an acknowledgement: `'5s'` (unless said), `'1m30s'`, or milliseconds; at least 100. */
  redelivery?: string | number;
  /** How often to deliver at most, 3 unless said; 0: for ever. */ redeliveryCount?: number;
  /** Waits of the first and further deliveries in place of `redelivery`: `'1s,10s,1m'`. */ backoff?: string;
  /** Most events without acknowledgement at a time, 256 unless said. */ maxInFlight?: number;
  /** Without `ack`: so many events may wait for the handler, 1024 unless said; then the node holds the rest back. */
  queueMax?: number;
  /** Its name before. @deprecated */ redeliveryMs?: number; /** @deprecated */ maxDeliveries?: number;
}
/** Those of a subscription whose events are acknowledged. */
export type AckOptions = SubscribeOptions & { ack: 'manual' };
/** An event of the log; `index` is -1 for one that is stored nowhere. */
export interface LogEvent {
  id: string; index: number; subject: string; created_at: string; headers?: Headers; payload: any;
}

/** An event of a subscription with `ack: 'manual'`. The end of its handler acknowledges it, unless the handler has
 *  called `nack` or `reject`. Each promise tells whether the bus waited for it; what goes wrong is the event
 *  `error`. */
export interface AckEvent extends LogEvent {
  /** It is not processed, and comes again: after `'30s'` or so many milliseconds, else after the next wait of
   *  `backoff`, else at once. */
  nack(delay?: string | number): Promise<boolean>;
  /** It cannot be processed: it becomes a dead letter now, with a reason of at most 1024 bytes. */
  reject(reason?: string): Promise<boolean>;
  /** It is being processed: the wait for its acknowledgement begins anew. */
  inProgress(): Promise<boolean>;
}

/** `methods` are those of all instances; the version, and what it offers by other names, those of the newest. */
export interface Service {
  name: string; version: string; methods: string[]; instances: number;
  capabilities?: { name: string; actions: string[] }[];
}
export interface ServiceEvent {
  service: Omit<Service, 'instances'>; instance_id: string | null; node: string | null; index: number; at: string;
}
/** `event`: the name that a client of another door gave it. */
export interface Broadcast { id?: string; consumer: string; event?: string; at: string; payload: any }
/** A message that was not delivered: a one-way message of this client, or one of others, which services are told of. */
export interface Unhandled { message_id: string; destination: string; consumer: string; reason: string }
/** What `on` listens to. */
export interface Events {
  /** The first instance of a service is there; the last one has gone. */ online: ServiceEvent; offline: ServiceEvent;
  /** An instance is there; one has gone. */ connect: ServiceEvent; disconnect: ServiceEvent;
  broadcast: Broadcast; unhandled: Unhandled; command: Command;
  /** This client is registered, at first or again. */ registered: { instance_id?: string; index: number };
  /** It has ended and does not come back. */ closed: { code: number; reason: string };
  /** A connection that was lost or not made, and failures that no promise tells of. */ error: RollbookError;
}

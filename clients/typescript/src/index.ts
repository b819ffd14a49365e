/** Services and consumers of the rollbook service bus. */
import { Link, failure, text, type Frame, type Send } from './link.js';
import { Subscription } from './subscription.js';
import * as T from './types.js';
export * from './types.js';
export { Subscription };

/** Connects a service, or without methods a consumer. Throws a TypeError for options that cannot be. */
export const connect = (options: T.Options): Client => new Client(options);

export class Client extends Link {
  private readonly roll = new Map<string, T.Service>();
  /** By service and instance; a number stands for an instance that `registered` counts and does not name. */
  private readonly methods = new Map<string, Map<unknown, string[]>>();
  private index = 0;
  /** What is there, by name; without a connection what was there. */
  readonly services: ReadonlyMap<string, T.Service> = this.roll;

  /** Asks `service:method`: the payload of its response. */
  async call<Result = any>(destination: string, payload?: unknown, options: T.MessageOptions = {}): Promise<Result> {
    const { key, traceparent } = options;
    const frame = { type: 'message', destination, responder: 'call', payload, key, traceparent };
    return (await this.ask(frame, 'response', options)).payload as Result;
  }

  /** Tells `service:method`. Resolved when it is sent; that nobody got it is the event `unhandled`. */
  send(destination: string, payload?: unknown, options: T.MessageOptions = {}): Promise<void> {
    const { key, traceparent } = options;
    return this.post({ type: 'message', destination, payload, key, traceparent }, options);
  }

  /** Tells all instances of all services. Resolved when it is sent. */
  broadcast(payload?: unknown, options: T.RequestOptions = {}): Promise<void> {
    return this.post({ type: 'broadcast', payload }, options);
  }

  /** Writes an event into the log. One whose key was used tells where the first is, if the node says so. */
  async publish(subject: string, payload?: unknown, options: T.PublishOptions = {}): Promise<T.Published> {
    const { key, traceId: trace_id, headers } = options;
    const frame = { type: 'publish', subject, payload, key, trace_id, headers };
    const first = (error: any) => (error?.data?.event_id ? error.data : Promise.reject(error)); // Stored all the same.
    const { type, event_id, index, created_at } = await this.ask(frame, 'published', options).catch(first);
    return { eventId: String(event_id), index: Number(index), createdAt: String(created_at), duplicate: !type };
  }

  /** Follows the log: the handler has one event after the other. */
  subscribe(subject: string, options: T.AckOptions, handler: (event: T.AckEvent) => unknown): Subscription;
  subscribe(subject: string, options: T.SubscribeOptions, handler: (event: T.LogEvent) => unknown): Subscription;
  subscribe(subject: string, options: T.SubscribeOptions, handler: (event: T.AckEvent) => unknown): Subscription {
    const subscription = new Subscription(subject, options, handler, this);
    this.streams.add(subscription);
    void subscription.ended.then(() => this.streams.delete(subscription));
    if (this.live) void subscription.start();
    if (this.over) subscription.end('closed', this.over);
    return subscription;
  }

  private post(frame: Frame, options: T.RequestOptions): Promise<void> {
    const sent = this.ask(frame, undefined, options).then(() => {});
    sent.catch(() => {}); // Who does not wait for it does not want to know.
    return sent;
  }

  protected override hear(frame: Frame, send: Send): void {
    const { type, id: message_id, event, responder } = frame;
    if (type === 'registered') this.reset(frame);
    else if (type === 'message') void this.serve(frame, send);
    else if (type === 'command') this.obey(frame, send);
    else if (type === 'broadcast') this.emit('broadcast', frame);
    else if (type === 'event' && event === 'unhandled') this.emit('unhandled', frame);
    else if (type === 'event') this.change(frame);
    else if (type === 'delivery' || type === 'unsubscribed') for (const one of this.streams) one.take(frame);
    // With a responder it is for a call that nobody waits for any more.
    else if (type === 'error' && !responder) this.emit('error', failure(frame));
    else if (type === 'unhandled' && !responder) this.emit(type, { ...frame, message_id, consumer: this.options.name });
  }

  private reset({ index, instance_id, services }: Frame): void {
    this.index = Number(index);
    [this.roll, this.methods].forEach((map) => map.clear());
    for (const service of (services ?? []) as T.Service[]) {
      for (let n = 0; n < service.instances; n += 1) this.put(service, n, service.methods);
    }
    this.emit('registered', { instance_id, index });
  }

  private change(frame: Frame): void {
    const word = /^service-(online|offline|connect|disconnect)$/.exec(String(frame.event))?.[1];
    if (!word || !(Number(frame.index) > this.index)) return;
    const { service, instance_id, index } = frame as unknown as T.ServiceEvent;
    const known = this.roll.get(service.name);
    this.index = index;
    if (word === 'connect') this.put(service, instance_id, service.methods);
    if (word === 'disconnect' && known) this.put(known, instance_id);
    if (word === 'offline') [this.roll, this.methods].forEach((map) => map.delete(service.name));
    this.emit(word as keyof T.Events, frame);
  }

  /** An instance came with its methods, or one went. */
  private put({ name, version, capabilities }: T.ServiceEvent['service'], instance: unknown, came?: string[]): void {
    const by = this.methods.get(name) ?? new Map<unknown, string[]>();
    if (came) by.set(instance, came);
    // One that nobody named is one of those that are only counted.
    else by.delete(by.has(instance) ? instance : [...by.keys()].find((key) => typeof key === 'number'));
    const methods = [...new Set([...by.values()].flat())];
    this.methods.set(name, by);
    this.roll.set(name, { name, version, methods, instances: by.size, ...(capabilities && { capabilities }) });
  }

  private async serve(frame: Frame, send: Send): Promise<void> {
    const { payload, responder, ...told } = frame as unknown as T.Context & { payload: unknown; responder?: string };
    const { id, destination, consumer, traceparent } = told;
    const wanted = responder !== undefined;
    try {
      const { methods = {} } = this.options;
      const method = destination.slice(destination.indexOf(':') + 1);
      if (!Object.hasOwn(methods, method)) throw new T.RollbookError('no_method', `there is no method ${method}`);
      const result = await methods[method]!(payload, { id, destination, method, consumer, traceparent, wanted });
      if (wanted) send({ type: 'response', id, payload: result });
    } catch (error) {
      wanted ? refuse(id, error, send) : this.report(error);
    }
  }

  private obey({ id, command, data }: Frame, send: Send): void {
    const ordered = { id, command, data } as T.Command;
    const { onCommand } = this.options;
    const handled = !!onCommand || this.listens('command') || command === 'ping';
    this.emit('command', ordered);
    const done = Promise.resolve(ordered).then((order) => onCommand?.(order));
    done.then(() => send({ type: 'done', id, ...(!handled && { handled }) })).catch(this.report);
  }
}

/** Tells what a method threw, without data that cannot be told. The bus takes 128 bytes of code, 1024 of message. */
function refuse(id: string, thrown: unknown, send: Send): void {
  const cut = (from = '', max: number) => from.slice(0, new TextEncoder().encodeInto(from, new Uint8Array(max)).read);
  const said: Partial<T.RollbookError> = thrown instanceof Object ? thrown : { message: String(thrown) };
  const [code, message] = [cut(text(said.code), 128) || 'service_error', cut(text(said.message), 1024)];
  const frame = { type: 'error', id, code, message, retryable: said.retryable === true };
  try {
    send({ ...frame, data: said.data });
  } catch {
    send(frame);
  }
}

/** A stream of events of the log that goes on over lost connections. */
import { newId, text, type Frame, type Link, type Stream } from './link.js';
import { RollbookError, type LogEvent, type SubscribeOptions } from './types.js';

/** What `client.subscribe` gives. */
export class Subscription implements Stream {
  private settle!: { begun(): void; refused(error: unknown): void };
  private finish!: (reason?: string) => void;
  /** Resolved when it has begun; rejected when it never does. */
  readonly ready = new Promise<void>((begun, refused) => (this.settle = { begun, refused }));
  /** Resolved when no more events come: with the reason, or nothing when it was closed as asked. */
  readonly ended = new Promise<string | undefined>((resolve) => (this.finish = resolve));
  /** Once it has ended: what kind of end it was, if the bus said so, as `taken_over`, `deleted`, `not_found`. */
  code?: string;
  private id = ''; // Of the stream: each attempt has its own.
  private over = false;
  private last?: string; // The newest event that was handled.
  private running?: string; // The event that is being handled.
  private failures = 0; // Attempts in a row that brought no event.
  private work = Promise.resolve();
  private unsaid: string[] = []; // Events that were handled and are not acknowledged yet.
  private saying = Promise.resolve();

  /** Use `client.subscribe`. */
  constructor(
    readonly subject: string, private readonly options: SubscribeOptions,
    private readonly handler: (event: LogEvent) => unknown, private readonly link: Link,
  ) {}

  /** Ends it when the handler at work, which must not wait for this, is through; events behind it are dropped. */
  async close(): Promise<void> {
    if (this.over) return;
    this.end();
    await this.work;
    await this.saying;
    if (this.link.live) await this.link.ask({ type: 'unsubscribe', id: this.id }, 'unsubscribed').catch(() => {});
  }

  /** There is a connection: begins, or goes on behind what was handled. */
  async start(): Promise<void> {
    const id = (this.id = newId());
    this.unsaid = [];
    await this.work;
    if (this.over || this.id !== id) return;
    const { redeliveryMs, maxDeliveries, ...given } = this.options; // Their older names.
    const { redelivery = redeliveryMs, redeliveryCount: redelivery_count = maxDeliveries, maxInFlight, ...options } = given;
    const start = options.consumer ?? options.group ? options.start : this.last ?? options.start;
    const terms = { start, redelivery, redelivery_count, max_in_flight: maxInFlight };
    const frame = { type: 'subscribe', id, subject: this.subject, ...options, ...terms };
    try {
      await this.link.ask(frame, 'subscribed');
      this.settle.begun();
    } catch (error) {
      const { code, retryable } = error as RollbookError;
      // After a loss, the next registration begins it again.
      if (code === 'connection_lost' || this.over || this.id !== id) return;
      if (code === 'timeout') this.link.live?.({ type: 'unsubscribe', id }); // It may have begun all the same.
      else if (!retryable) this.end(code, error);
      this.over ? this.link.report(error) : this.again(id);
    }
  }

  /** Begins anew after a while, unless a new connection does so before. */
  private again(id: string): void {
    const { link } = this;
    setTimeout(() => this.id === id && !this.over && link.live && this.start(), link.backoff(this.failures++));
  }

  /** Takes a frame `delivery` or `unsubscribed`, of this stream or another. */
  take(frame: Frame): void {
    const { type, id, event, code, reason } = frame;
    if (id !== this.id || this.over) return;
    const came = event as LogEvent;
    if (type === 'unsubscribed') {
      if (!this.link.live || passes(frame)) this.again(id as string);
      else this.end(text(reason) ?? text(code) ?? 'unknown', undefined, text(code));
      return;
    }
    this.failures = 0;
    if (came.id !== this.running) this.work = this.work.then(() => this.handle(came, id as string));
  }

  /** No more events: as asked, or for a reason, which has a code when the bus gave it. */
  end(reason?: string, error?: unknown, code?: string): void {
    if (this.over) return;
    [this.over, this.code] = [true, code];
    this.ready.catch(() => {}); // Who does not ask is told by the event `error`.
    this.settle.refused(error ?? new RollbookError('closed', 'the subscription has ended'));
    this.finish(reason);
  }

  private async handle(event: LogEvent, id: string): Promise<void> {
    if (this.over) return;
    const { link, handler, options: { ack } } = this;
    this.running = event.id;
    // One that crossed its acknowledgement is not handled twice.
    const done = event.id === this.last || (await Promise.resolve(event).then(handler).then(() => true, link.report));
    // Behind one that is stored nowhere is nothing; one that is not acknowledged comes again.
    if (event.index >= 0 && (done || ack !== 'manual')) this.last = event.id;
    if (done && ack === 'manual' && this.id === id && link.live) this.acknowledge(event.id, id);
    this.running = undefined;
  }

  /** The handler does not wait for this. What was handled before the answer comes is acknowledged together. */
  private acknowledge(event: string, id: string): void {
    if (this.unsaid.push(event) === 1) this.saying = this.saying.then(() => this.say(id));
  }

  private async say(id: string): Promise<void> {
    if (this.id !== id) return;
    const event_ids = this.unsaid;
    this.unsaid = [];
    const which = event_ids.length > 1 ? { event_ids } : { event_id: event_ids[0] };
    if (this.link.live) await this.link.ask({ type: 'ack', id, ...which }, 'acked').catch(this.link.report);
  }
}

/** Whether a stream that ended so may begin again. Older nodes tell no `retryable`, and still older ones no `code`. */
function passes({ retryable, code, reason }: Frame): boolean {
  if (typeof retryable === 'boolean') return retryable;
  return code ? code === 'node_stopping' || code === 'ended' : reason === 'node stopping';
}

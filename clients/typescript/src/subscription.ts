/** A stream of events of the log that goes on over lost connections. */
import { newId, text, type Frame, type Link, type Stream } from './link.js';
import { RollbookError, type AckEvent, type SubscribeOptions } from './types.js';

/** Most events that one frame acknowledges. */
const BATCH_MAX = 1000;
/** What has become of events, and which these are, until it is sent. */
interface Said { outcome: object; events: { id: string; told(taken: boolean): void }[] }

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
  private readonly manual = this.options.ack === 'manual';
  private id = ''; // Of the stream: each attempt has its own.
  private open = ''; // The stream that has not ended.
  private over = false;
  private pausing = false; // Too many events wait: the node was asked to end the stream.
  private last?: string; // The newest event that was handled.
  private failures = 0; // Attempts in a row that brought no event.
  private work = Promise.resolve();
  /** Events that wait, that are being handled, or whose acknowledgement has no answer yet: a copy means nothing. */
  private readonly held = new Set<string>();
  private readonly unsaid = new Map<string, Said>(); // By outcome.
  private saying = Promise.resolve();

  /** Use `client.subscribe`. */
  constructor(
    readonly subject: string, private readonly options: SubscribeOptions,
    private readonly handler: (event: AckEvent) => unknown, private readonly link: Link,
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
    this.open = '';
    this.drop();
    await this.work;
    // Without a connection, the next registration begins it.
    if (this.over || this.id !== id || !this.link.live) return;
    this.held.clear();
    [this.open, this.pausing] = [id, false];
    const { redeliveryMs, maxDeliveries, ...given } = this.options; // Their older names.
    const { redelivery = redeliveryMs, redeliveryCount: redelivery_count = maxDeliveries, ...rest } = given;
    const { maxInFlight, orderBy: order_by, queueMax: _, ...options } = rest;
    const behind = options.consumer ?? options.group ? undefined : this.last;
    const from = behind === undefined ? {} : { start: behind, since: undefined };
    const terms = { ...from, redelivery, redelivery_count, max_in_flight: maxInFlight, order_by };
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
    if (type === 'unsubscribed') {
      this.open = '';
      if (this.pausing && !code && this.link.live) void this.start(); // When the handler has caught up.
      else if (!this.link.live || passes(frame)) this.again(id as string);
      else this.end(text(reason) ?? text(code) ?? 'unknown', undefined, text(code));
      return;
    }
    this.failures = 0;
    const came = event as AckEvent;
    if (this.held.has(came.id)) return;
    this.held.add(came.id);
    this.work = this.work.then(() => this.handle(came, id as string));
    // With acknowledgements the node holds the rest back by itself.
    if (this.manual || this.pausing || this.held.size < (this.options.queueMax ?? 1024)) return;
    this.pausing = true;
    this.link.live?.({ type: 'unsubscribe', id });
  }

  /** No more events: as asked, or for a reason, which has a code when the bus gave it. */
  end(reason?: string, error?: unknown, code?: string): void {
    if (this.over) return;
    [this.over, this.code] = [true, code];
    this.ready.catch(() => {}); // Who does not ask is told by the event `error`.
    this.settle.refused(error ?? new RollbookError('closed', 'the subscription has ended'));
    this.finish(reason);
  }

  /** Resolved when what was said of events until now has its answers. */
  said(): Promise<void> {
    return this.saying;
  }

  /** Whether what is said of events of this stream reaches anybody. */
  private flows(stream: string): boolean {
    return this.open === stream && !!this.link.live;
  }

  private async handle(event: AckEvent, id: string): Promise<void> {
    // What nobody can acknowledge any more comes again.
    if (this.over || (this.manual && !this.flows(id))) return;
    let decided = false;
    const decide = (outcome: object) => {
      decided = true;
      this.held.delete(event.id);
      return this.tell(event.id, id, outcome);
    };
    if (this.manual) {
      Object.defineProperties(event, {
        nack: { value: (delay?: string | number) => decide({ action: 'nack', delay }) },
        reject: { value: (reason?: string) => decide({ action: 'reject', reason }) },
        inProgress: { value: () => this.tell(event.id, id, { action: 'in_progress' }) },
      });
    }
    // One that crossed its acknowledgement is not handled twice.
    const repeated = event.id === this.last;
    const done = repeated || (await Promise.resolve(event).then(this.handler).then(() => true, this.link.report));
    // Behind one that is stored nowhere is nothing; one that is not acknowledged comes again.
    if (event.index >= 0 && (!this.manual || (done && !decided))) this.last = event.id;
    // The handler does not wait for this. What was handled before the answer comes is acknowledged together.
    if (done && this.manual && !decided) void this.tell(event.id, id, {}).then(() => this.held.delete(event.id));
    else this.held.delete(event.id);
  }

  /** Says what has become of an event: whether the bus waited for it. What goes wrong is the event `error`. */
  private tell(id: string, stream: string, outcome: object): Promise<boolean> {
    if (!this.flows(stream)) return Promise.resolve(false);
    return new Promise((told) => {
      if (!this.unsaid.size) this.saying = this.saying.then(() => this.say(stream));
      const key = JSON.stringify(outcome);
      if (!this.unsaid.has(key)) this.unsaid.set(key, { outcome, events: [] });
      this.unsaid.get(key)!.events.push({ id, told });
    });
  }

  /** Sends all that is not said yet: one frame for each outcome, one after the other. */
  private async say(stream: string): Promise<void> {
    for (let next; (next = this.unsaid.entries().next().value) && this.flows(stream); ) {
      const [key, { outcome, events }] = next;
      const some = events.splice(0, BATCH_MAX);
      if (!events.length) this.unsaid.delete(key);
      const missed = await this.ask(stream, outcome, some.map(({ id }) => id));
      for (const { id, told } of some) told(!!missed && !missed.includes(id));
    }
    if (!this.flows(stream)) this.drop();
  }

  /** What is not said yet reaches nobody any more: the events come again. */
  private drop(): void {
    for (const { events } of this.unsaid.values()) for (const { told } of events) told(false);
    this.unsaid.clear();
  }

  /** The events that the stream did not wait for; nothing when that is not known. */
  private async ask(stream: string, outcome: object, event_ids: string[]): Promise<string[] | undefined> {
    const which = event_ids.length > 1 ? { event_ids } : { event_id: event_ids[0] };
    try {
      const answer = await this.link.ask({ type: 'ack', id: stream, ...which, ...outcome }, 'acked');
      const missed = answer.in_flight === false ? event_ids : answer.not_in_flight;
      return Array.isArray(missed) ? missed : [];
    } catch (error) {
      // After a loss, which was reported, or the end of the stream, the events come again.
      const ended = error instanceof RollbookError && /^(connection_lost|closed|unknown_request)$/.test(error.code);
      if (!ended) this.link.report(error);
      return undefined;
    }
  }
}

/** Whether a stream that ended so may begin again. Older nodes tell no `retryable`, and still older ones no `code`. */
function passes({ retryable, code, reason }: Frame): boolean {
  if (typeof retryable === 'boolean') return retryable;
  return code ? code === 'node_stopping' || code === 'ended' : reason === 'node stopping';
}

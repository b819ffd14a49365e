//! `bench xbus`: envelopes from an emitter to a worker to a consumer, each over NATS in protobuf.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::app::bench::args::XbusArgs;
use crate::app::bench::cases::load::Stop;
use crate::app::bench::child::{ScratchDir, Server};
use crate::app::bench::client::http::Target;
use crate::app::bench::client::nats::{self, Message, Reader, Writer};
use crate::app::bench::client::xbus::{
    Acknowledgement, Actors, END_OF_STREAM, Fragment, Job, Outcome, Position, Request, State, envelope, forward,
    fragments, new_id, output, set_up,
};
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Latency, Report, latency};
use crate::app::bench::meter::{Meter, own_cpu_seconds};
use crate::app::bench::units::{Clock, count, float, nanos, per_second};
use crate::app::cli::access::resolve::Access;

/// Load before each timed run, which is not measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the envelopes that are on their way at the end of a run may take.
const DRAIN: Duration = Duration::from_secs(30);
/// Bytes of a fragment of a big envelope, as the published clients cut them.
const FRAGMENT_BYTES: usize = 500_000;
/// Fragments without an acknowledgement.
const FRAGMENTS_MAX: usize = 8;
/// How often the memory of the server is read while a big envelope flows.
const SAMPLE: Duration = Duration::from_millis(50);
/// Longest way of a big envelope.
const BIG: Duration = Duration::from_secs(300);
const MIB: f64 = 1024.0 * 1024.0;

/// The server under test. The fields drop in this order: the server ends before its directory is removed.
struct Bus {
    _server: Option<Server>,
    _data: Option<ScratchDir>,
    door: String,
    meter: Meter,
    actors: Actors,
}

impl Bus {
    /// The server of the command line, or one that is started here.
    async fn find(context: &Context, args: &XbusArgs) -> Result<Self> {
        if let Some(door) = &args.nats {
            let web = context.web.as_ref().context("the address given with --web cannot be resolved")?;
            let (door, meter) = (door.trim_start_matches("nats://").to_owned(), context.meter.clone());
            return Ok(Self { _server: None, _data: None, door, meter, actors: set_up(web).await? });
        }
        let data = ScratchDir::new(&args.dir)?;
        let server = start(data.path()).await?;
        let (web, nats) = (server.url("web")?, server.url("nats")?);
        let web = Target::resolve(&web, &Access::given(web.as_str(), Default::default(), None)).await?;
        let host = nats.host_str().context("the server printed no host for `nats`")?;
        let door = format!("{host}:{}", nats.port().context("the server printed no port for `nats`")?);
        let meter = Meter::Process(server.pid());
        let actors = set_up(&web).await?;
        Ok(Self { _server: Some(server), _data: Some(data), door, meter, actors })
    }

    /// Connects, and subscribes to an inbox of this connection alone.
    async fn connect(&self) -> Result<(Reader, Writer, String)> {
        let (reader, mut writer) = nats::connect(&self.door).await?;
        let inbox = format!("_INBOX.{}.in.{}", self.actors.account, uuid::Uuid::new_v4().simple());
        writer.subscribe(&format!("{inbox}.*"), "a");
        Ok((reader, writer, inbox))
    }

    /// Connects as an actor that takes jobs.
    async fn receiver(&self, actor: &str) -> Result<(Reader, Writer, String)> {
        let (reader, mut writer, inbox) = self.connect().await?;
        writer.subscribe(&format!("xbus.default.actoragent.{actor}.process"), "j");
        writer.publish(format!("xbus.default.sentinel.actorready.{actor}").as_bytes(), b"", b"");
        writer.flush().await?;
        Ok((reader, writer, inbox))
    }

    async fn emitter(&self) -> Result<(Reader, Writer, String)> {
        let (reader, mut writer, inbox) = self.connect().await?;
        writer.subscribe(&format!("xbus.default.processstate.{}.envelope.*", self.actors.emitter), "s");
        writer.flush().await?;
        Ok((reader, writer, inbox))
    }
}

async fn start(folder: &Path) -> Result<Server> {
    let path = folder.join("data").to_string_lossy().into_owned();
    let addresses = ["--log", "--web", "--peer", "--nats"].into_iter().flat_map(|flag| [flag, "127.0.0.1:0"]);
    let arguments = ["serve", "--data", &path].into_iter().chain(addresses).map(str::to_owned).collect();
    Server::start(arguments, &[], folder.join("serve.log")).await
}

/// Runs `xbus`.
///
/// # Errors
/// The server cannot be reached, needs credentials, or fails an envelope.
pub(in crate::app::bench) async fn run(context: &Context, args: &XbusArgs) -> Result<Report> {
    ensure!(args.window > 0 && args.connections > 0, "--window and --connections must be at least 1");
    let bus = Arc::new(Bus::find(context, args).await?);
    let mut receivers = JoinSet::new();
    for _ in 0..args.connections {
        let (worker, consumer) = (bus.actors.worker.clone(), bus.actors.consumer.clone());
        receivers.spawn(work(bus.receiver(&worker).await?, bus.actors.clone(), args.big.is_some()));
        receivers.spawn(consume(bus.receiver(&consumer).await?, bus.actors.clone()));
    }
    let name = args.big.map_or_else(|| format!("{} outstanding", args.window), |mib| format!("1 of {mib} MiB"));
    let mut case = Case::new(format!("envelopes, {name}"));
    for run in 1..=context.runs {
        let line = progress_line(format!("xbus: {}, run {run} of {}", case.name, context.runs));
        let load = async {
            match args.big {
                Some(mib) => big(&bus, mib).await,
                None => once(context, args, &bus).await,
            }
        };
        let figures = tokio::select! {
            figures = load => figures?,
            Some(ended) = receivers.join_next() => {
                ended??;
                bail!("an actor has ended");
            }
        };
        line.finish_and_clear();
        case.runs.push(figures);
    }
    Ok(Report { bench: "xbus", cases: vec![case], first_error: None })
}

/// What an emitter has sent and knows.
struct Emitted {
    clock: Clock,
    measure_from: u64,
    until: u64,
    /// When the envelopes were sent that are not done, by the text of their ids.
    sent: HashMap<Bytes, u64>,
    acknowledged: Latency,
    done: Latency,
    last_done: u64,
}

impl Emitted {
    /// Something came for the emitter.
    fn take(&mut self, message: &Message) -> Result<()> {
        let id = message.subject.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        let now = self.clock.now();
        let measured = (self.measure_from..self.until).contains(&now);
        if message.subject.starts_with(b"_INBOX.") {
            check_acknowledgement(&message.payload)?;
            if let Some(at) = self.sent.get(id).filter(|_| measured) {
                self.acknowledged.saturating_record(now.saturating_sub(*at).max(1));
            }
            return Ok(());
        }
        match Outcome::decode(&message.payload[..])?.status {
            4 => {
                if let Some(at) = self.sent.remove(id).filter(|_| measured) {
                    self.done.saturating_record(now.saturating_sub(at).max(1));
                    self.last_done = now;
                }
                Ok(())
            }
            5 => bail!("the process of envelope {} failed", String::from_utf8_lossy(id)),
            _ => Ok(()),
        }
    }
}

fn check_acknowledgement(payload: &[u8]) -> Result<i32> {
    ensure!(payload.first() != Some(&0), "an output is refused: {}", String::from_utf8_lossy(payload));
    let ack = Acknowledgement::decode(payload)?;
    ensure!(ack.status == 1 || ack.status == 2, "an envelope is refused: {}", ack.reason);
    Ok(ack.status)
}

/// Emits for a while, with so many envelopes on their way.
async fn once(context: &Context, args: &XbusArgs, bus: &Bus) -> Result<Figures> {
    let (mut reader, mut writer, inbox) = bus.emitter().await?;
    let (most, time) = match context.stop() {
        Stop::After(time) => (u64::MAX, WARM_UP + time),
        Stop::Count(n) => (n, Duration::from_secs(3600)),
    };
    let clock = Clock::start();
    let measure_from = if most == u64::MAX { nanos(WARM_UP) } else { 0 };
    let mut emitted = Emitted {
        clock,
        measure_from,
        until: nanos(time),
        sent: HashMap::new(),
        acknowledged: latency()?,
        done: latency()?,
        last_done: 0,
    };
    let mut cpu = (bus.meter.cpu_seconds().await, own_cpu_seconds(), clock.now());
    let subject = format!("xbus.default.broker.{}.output", bus.actors.emitter);
    let (item, mut begun) = (vec![b'x'; args.bytes], 0);
    loop {
        let emits = begun < most && clock.now() < emitted.until;
        if cpu.2 < measure_from && clock.now() >= measure_from {
            cpu = (bus.meter.cpu_seconds().await, own_cpu_seconds(), clock.now());
        }
        while emits && begun < most && emitted.sent.len() < args.window {
            let id = new_id();
            let text = id.to_string();
            let inbox = format!("{inbox}.{text}");
            writer.publish(subject.as_bytes(), inbox.as_bytes(), &output(None, envelope(id, item.clone())));
            emitted.sent.insert(Bytes::from(text), clock.now());
            begun = begun.saturating_add(1);
        }
        if emitted.sent.is_empty() && !emits {
            break;
        }
        let came = timeout(DRAIN, reader.messages(&mut writer)).await;
        for message in came.with_context(|| format!("{} envelopes never end", emitted.sent.len()))?? {
            emitted.take(&message)?;
        }
    }
    let used = (bus.meter.cpu_seconds().await, own_cpu_seconds());
    Ok(figures(&emitted, cpu, used))
}

type Cpu = (Option<f64>, Option<f64>);

fn figures(emitted: &Emitted, before: (Option<f64>, Option<f64>, u64), after: Cpu) -> Figures {
    let done = emitted.done.len();
    let elapsed = Duration::from_nanos(emitted.last_done.saturating_sub(emitted.measure_from));
    let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / float(done.max(1)));
    let quantile = |of: &Latency, at: f64| float(of.value_at_quantile(at)) / 1e6;
    let mut figures = Figures::default();
    figures.set("processes_per_s", per_second(done, elapsed));
    figures.set("ack_p50_ms", quantile(&emitted.acknowledged, 0.5));
    figures.set("ack_p99_ms", quantile(&emitted.acknowledged, 0.99));
    figures.set("done_p50_ms", quantile(&emitted.done, 0.5));
    figures.set("done_p99_ms", quantile(&emitted.done, 0.99));
    figures.set_known("server_cpu_us", each(before.0, after.0));
    figures.set_known("client_cpu_us", each(before.1, after.1));
    figures
}

/// Says that a job ended well.
fn succeed(writer: &mut Writer, inbox: &[u8], context: Job) {
    writer.publish(inbox, b"", &State { context: Some(context), status: 2 }.encode_to_vec());
    writer.publish(inbox, b"", &END_OF_STREAM);
}

fn is_job(message: &Message) -> bool {
    message.subject.ends_with(b".process")
}

/// A worker that sends what came in as an envelope of its own, or forwards what is big.
async fn work((mut reader, mut writer, own): (Reader, Writer, String), actors: Actors, forwards: bool) -> Result<()> {
    let subject = format!("xbus.default.broker.{}.output", actors.worker);
    let (mut next, mut sent) = (0_u64, HashMap::<Bytes, (Bytes, Job)>::new());
    loop {
        for message in reader.messages(&mut writer).await? {
            if !is_job(&message) {
                check_acknowledgement(&message.payload)?;
                if let Some((inbox, context)) = sent.remove(&message.subject) {
                    succeed(&mut writer, &inbox, context);
                }
                continue;
            }
            let request = Request::decode(message.payload)?;
            let context = request.context.context("a job without a context")?;
            let received = request.inputs.into_iter().find_map(|input| input.envelope);
            let received = received.context("a job without an envelope")?;
            let body = if forwards {
                forward(context.clone(), received.id)
            } else {
                let item = received.events.into_iter().next().and_then(|event| event.items.into_iter().next());
                output(Some(context.clone()), envelope(new_id(), item.unwrap_or_default()))
            };
            next = next.wrapping_add(1);
            let inbox = Bytes::from(format!("{own}.{next}"));
            writer.publish(subject.as_bytes(), &inbox, &body);
            sent.insert(inbox, (message.reply, context));
        }
    }
}

/// A consumer that asks for the rest of what is big.
async fn consume((mut reader, mut writer, own): (Reader, Writer, String), actors: Actors) -> Result<()> {
    let subject = format!("xbus.default.envelopestorage.retrieve.actor.{}", actors.consumer);
    // The jobs whose envelopes are being retrieved, by the inbox of the stream.
    let (mut next, mut asked) = (0_u64, HashMap::<Bytes, (Bytes, Job, bool)>::new());
    loop {
        for message in reader.messages(&mut writer).await? {
            if is_job(&message) {
                let request = Request::decode(message.payload)?;
                let context = request.context.context("a job without a context")?;
                let position = request.inputs.into_iter().find_map(|input| input.position);
                let Some(position) = position.filter(|position| !position.complete) else {
                    succeed(&mut writer, &message.reply, context);
                    continue;
                };
                next = next.wrapping_add(1);
                let inbox = Bytes::from(format!("{own}.{next}"));
                let position = Position { start: true, complete: false, ..position };
                writer.publish(subject.as_bytes(), &inbox, &position.encode_to_vec());
                asked.insert(inbox, (message.reply, context, false));
            } else if message.payload.first() != Some(&0) {
                let fragment = Fragment::decode(message.payload)?;
                if let Some((.., whole)) = asked.get_mut(&message.subject) {
                    *whole |= fragment.position.is_some_and(|position| position.complete);
                }
            } else if message.payload.len() > 1
                && let Some((inbox, context, whole)) = asked.remove(&message.subject)
            {
                ensure!(whole, "a stream ends early: {}", String::from_utf8_lossy(&message.payload));
                succeed(&mut writer, &inbox, context);
            }
        }
    }
}

/// One envelope of so many MiB, and the memory of the server meanwhile.
async fn big(bus: &Bus, mib: u64) -> Result<Figures> {
    let (mut reader, mut writer, inbox) = bus.emitter().await?;
    let parts = (mib.saturating_mul(1024 * 1024) / count(FRAGMENT_BYTES)).max(1);
    let id = new_id();
    let (subject, text) = (format!("xbus.default.broker.{}.output", bus.actors.emitter), id.to_string());
    let inbox = format!("{inbox}.{text}");
    let before = bus.meter.resident_bytes().await;
    let (mut peak, clock) = (0.0_f64, Clock::start());
    let flow = async {
        let mut fragments = fragments(id, &vec![b'x'; FRAGMENT_BYTES], parts);
        let (mut waiting, mut accepted_at) = (0_usize, 0);
        loop {
            while waiting < FRAGMENTS_MAX
                && let Some(fragment) = fragments.next()
            {
                writer.publish(subject.as_bytes(), inbox.as_bytes(), &output(None, fragment));
                waiting = waiting.saturating_add(1);
            }
            for message in reader.messages(&mut writer).await? {
                if message.subject.starts_with(b"_INBOX.") {
                    waiting = waiting.saturating_sub(1);
                    if check_acknowledgement(&message.payload)? == 2 {
                        accepted_at = clock.now();
                    }
                } else if message.subject.ends_with(text.as_bytes()) {
                    match Outcome::decode(message.payload)?.status {
                        4 => return anyhow::Ok((accepted_at, clock.now())),
                        5 => bail!("the process of the envelope failed"),
                        _ => {}
                    }
                }
            }
        }
    };
    let sample = async {
        loop {
            peak = peak.max(bus.meter.resident_bytes().await.unwrap_or_default());
            sleep(SAMPLE).await;
        }
    };
    let (accepted, done) = tokio::select! {
        ended = timeout(BIG, flow) => ended.context("the envelope never ends")??,
        () = sample => bail!("the samples ended"),
    };
    let (after, mut figures) = (bus.meter.resident_bytes().await, Figures::default());
    figures.set("accepted_s", float(accepted) / 1e9);
    figures.set("done_s", float(done) / 1e9);
    figures.set("mib_per_s", float(mib) / (float(done) / 1e9));
    figures.set_known("rss_before_mib", before.map(|bytes| bytes / MIB));
    figures.set("rss_peak_mib", peak / MIB);
    figures.set_known("rss_after_mib", after.map(|bytes| bytes / MIB));
    Ok(figures)
}

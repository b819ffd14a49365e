//! Start and stop of the agent.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::config::Config;
use super::dispatcher::Dispatcher;
use super::error::AgentError;
use super::link::connector::Connector;
use super::node::node_address::NodeAddress;
use super::process::cgroup::Cgroups;
use super::process::reaper::Children;
use super::report::outbox::Outbox;
use super::report::subscriptions::Subscriptions;
use super::service::context::Context;
use super::service::readiness_table::ReadinessTable;
use super::store::builds::Builds;
use super::store::data_dir::DataDir;
use super::store::state_file::StateFile;

/// How long the last events may take to the hub when the agent stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs an agent until `shutdown` completes. Then its services are stopped, unless the settings say to keep them.
/// `connected` is called when the agent is connected to a node for the first time.
///
/// The future does all its work on the threads of the runtime that it is polled on; a runtime of one thread is enough,
/// and the cheapest.
///
/// # Errors
///
/// The agent cannot start. A hub that cannot be reached is no error.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    connected: impl FnOnce(),
) -> Result<(), AgentError> {
    config.check()?;
    let config = Arc::new(config);
    let (node, node_changes) = watch::channel(None);
    let mut first = node_changes.clone();
    let context = Arc::new(context(&config, node_changes)?);
    let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&context)));
    let connector = Connector {
        config: Arc::clone(&config),
        dispatcher: Arc::clone(&dispatcher),
        outbox: Arc::clone(&context.outbox),
        subscriptions: Arc::clone(&context.subscriptions),
        node,
    };
    let work = async {
        dispatcher.recover().await;
        tracing::info!(dock = config.id, "the dock is up");
        connector.run().await;
    };
    let stop = async {
        shutdown.await;
        if !config.keep {
            tracing::info!("stopping all services");
            dispatcher.shut_down().await;
            context.children.end_orphans().await;
        }
        flush(&context.outbox).await;
    };
    let announce = async {
        while first.borrow_and_update().is_none() && first.changed().await.is_ok() {}
        connected();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = announce => {}
        () = Arc::clone(&context.children).reap_orphans() => {}
        () = stop => {}
    }
    if let (false, Some(cgroups)) = (config.keep, &context.cgroups) {
        cgroups.remove_empty();
    }
    Ok(())
}

fn context(config: &Config, node: watch::Receiver<Option<NodeAddress>>) -> Result<Context, AgentError> {
    let wrong = |source| AgentError::Data { path: config.data.clone(), source };
    let data = DataDir::open(&config.data).map_err(wrong)?;
    let fresh_name = || uuid::Uuid::new_v4().simple().to_string();
    let state = StateFile::open(&data.state_file(), fresh_name).map_err(wrong)?;
    let cgroups = match config.cgroups {
        true => Cgroups::detect(&format!("rollbook-dock-{}", state.directory())),
        false => None,
    };
    tracing::info!(
        cgroups = cgroups.is_some(),
        memory = cgroups.as_ref().is_some_and(Cgroups::limits_memory),
        "limits"
    );
    Ok(Context {
        dock: config.id.clone(),
        tags: config.tags.clone(),
        default: config.default,
        child_command: config.child_command.clone(),
        log_bytes_max: config.log_bytes_max.max(64 * 1024),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        builds: Builds::open(data.builds()),
        data,
        state,
        cgroups,
        children: Arc::new(Children::new()),
        outbox: Arc::new(Outbox::new(&config.id)),
        subscriptions: Arc::<Subscriptions>::default(),
        readiness: Arc::<ReadinessTable>::default(),
        stopping: watch::Sender::new(false),
        node,
    })
}

/// Waits until all events are written, and a moment more for the network.
async fn flush(outbox: &Outbox) {
    let empty = async {
        while !outbox.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(FLUSH_TIMEOUT, empty).await.is_err() {
        tracing::warn!("the last events of processes did not reach a node");
    }
    sleep(Duration::from_millis(20)).await;
}

//! What clients ask for. The order of steps is that of the hub of hms 0.4.4; a route, as in hms 3.3.0, restricts it to the
//! docks with this id or tag.
//!
//! The right is `process` on `all/ID`, or on `DOCK/ID` for what concerns one dock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::error::Refusal;
use rollbook_core::security::right::Verb;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::definition::Definition;
use super::hub::DockHub;
use super::order::{CommandError, DockAnswer, DockAnswers, DockOp};
use super::output::is_id;
use super::table::{DockInfo, Selection};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// How long an answer waits for a new leader.
const ELECTION: Duration = Duration::from_secs(5);
/// Pause before the leader is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// What all docks do alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Restart.
    Restart,
}

impl Control {
    const fn op(self) -> DockOp {
        match self {
            Self::Start => DockOp::Start,
            Self::Stop => DockOp::Stop,
            Self::Restart => DockOp::Restart,
        }
    }
}

/// Whether a client may see, start and stop a process on a dock.
#[must_use]
pub fn may_process(who: &Identity, dock: &str, id: &str) -> bool {
    who.may(Verb::Process, &format!("all/{id}")) || who.may(Verb::Process, &format!("{dock}/{id}"))
}

fn check(who: &Identity, id: &str, route: Option<&str>) -> Result<(), Fault> {
    match route {
        Some(route) if may_process(who, route, id) => Ok(()),
        _ => who.check(Verb::Process, &format!("all/{id}")),
    }
}

fn not_found(id: &str) -> Fault {
    Fault::new(FaultKind::NotFound, format!("there is no definition {id}"))
}

fn selection(route: Option<&str>) -> Selection {
    route.map_or(Selection::All, |route| Selection::Route(route.to_owned()))
}

/// The docks that a command of this client is for. A tag is what a dock says of itself, so a right to one dock is not one to
/// all docks with its name as a tag.
fn commanded(who: &Identity, id: &str, route: Option<&str>) -> Selection {
    match route {
        Some(route) if !who.may(Verb::Process, &format!("all/{id}")) => Selection::These(vec![route.to_owned()]),
        route => selection(route),
    }
}

/// The first error of a dock wins. What a node does not tell of its docks is one too.
fn first_error(answers: DockAnswers) -> Result<(), CommandError> {
    let failed = |answer: DockAnswer| {
        let DockAnswer { dock, result } = answer;
        result.err().map(|text| CommandError::Dock { dock, text })
    };
    let error = answers.answers.into_iter().find_map(failed);
    let silent = answers.unanswered.first().map(|node| silent(*node));
    error.or(silent).map_or(Ok(()), Err)
}

fn silent(node: u64) -> CommandError {
    Fault::unavailable(format!("the docks of node {node} cannot be asked now")).into()
}

/// Does what a client asked for to its end, also when the client leaves meanwhile: half of a command would leave processes
/// where they should not be. The orders to docks have deadlines, and so has this.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, CommandError>> + Send + 'static,
) -> Result<T, CommandError> {
    tokio::spawn(work).await.map_err(|error| Fault::internal(error.to_string()))?
}

impl DockHub {
    /// Waits until this node knows all that was there before, so that a client sees what it did through another node.
    ///
    /// # Errors
    /// The cluster cannot be asked now.
    pub async fn fresh(&self) -> Result<(), Fault> {
        let consensus = self.client().bus().node().consensus();
        let until = clock::now() + ELECTION;
        loop {
            match consensus.read_barrier(Consistency::Linearizable).await {
                Ok(_) => return Ok(()),
                // A leader was lost a moment ago: clients of hms do not try again by themselves.
                Err(Refusal::Unavailable(_)) if clock::now() < until => tokio::time::sleep(PAUSE).await,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Adds a definition, and returns it.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`]: there is one of this id. [`FaultKind::BadRequest`]: the text is no id, or a member is not
    /// what it must be.
    pub async fn add(&self, who: &Identity, id: &str, wanted: Map<String, Value>) -> Result<Definition, Fault> {
        check(who, id, None)?;
        // What another node has added a moment ago is noticed when this one is to be the first.
        if self.client().get(id)?.is_some() {
            return Err(Fault::new(FaultKind::Conflict, format!("there is a definition {id} already")));
        }
        if !is_id(id) {
            return Err(Fault::bad("an id has letters, digits, - and ."));
        }
        let mut definition = Definition::new(id);
        definition.merge(wanted)?;
        if self.client().add(&definition, who.actor("")).await? {
            return Ok(definition);
        }
        Err(Fault::new(FaultKind::Conflict, format!("there is a definition {id} already")))
    }

    /// Changes a definition, and returns what it is then. Docks hear of it with the next start, stop, restart or sync.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`]; [`FaultKind::BadRequest`]: a member is not what it must be.
    pub async fn update(&self, who: &Identity, id: &str, wanted: Map<String, Value>) -> Result<Definition, Fault> {
        check(who, id, None)?;
        self.fresh().await?;
        let edited = self.client().edit(id, &who.actor(""), |definition| definition.merge(wanted.clone())).await?;
        edited.ok_or_else(|| not_found(id))
    }

    /// Ends the processes of a definition on all docks, and removes the definition with its builds. It need not exist.
    ///
    /// # Errors
    /// A dock did not do it; the definition is still there then.
    pub async fn remove(&self, who: &Arc<Identity>, id: &str, route: Option<&str>) -> Result<(), CommandError> {
        check(who, id, route)?;
        let (hub, who, id, route) = (self.clone(), Arc::clone(who), id.to_owned(), route.map(str::to_owned));
        to_the_end(async move {
            let docks = commanded(&who, &id, route.as_deref());
            first_error(hub.fleet().order(&docks, (DockOp::Remove, &id), &Bytes::new()).await)?;
            if route.is_some() {
                return Ok(());
            }
            hub.fresh().await?;
            Ok(hub.client().remove(&id, who.actor("")).await?)
        })
        .await
    }

    /// A definition.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`].
    pub async fn get(&self, who: &Identity, id: &str) -> Result<Definition, Fault> {
        check(who, id, None)?;
        self.fresh().await?;
        self.client().get(id)?.map(|(definition, _)| definition).ok_or_else(|| not_found(id))
    }

    /// The definitions that the client may see, in the order in which they were added.
    ///
    /// # Errors
    /// The cluster cannot be asked now.
    pub async fn list(&self, who: &Identity) -> Result<Vec<Definition>, Fault> {
        self.fresh().await?;
        let all = self.client().list()?;
        Ok(all.into_iter().filter(|one| who.may(Verb::Process, &format!("all/{}", one.id()))).collect())
    }

    /// Starts, stops or restarts a process on all docks on which it is. With a route, whether the definition counts as
    /// stopped does not change.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`]; [`CommandError::Dock`]: the first dock that did not do it.
    pub async fn control(
        &self,
        who: &Arc<Identity>,
        id: &str,
        control: Control,
        route: Option<&str>,
    ) -> Result<(), CommandError> {
        check(who, id, route)?;
        let (hub, who, id, route) = (self.clone(), Arc::clone(who), id.to_owned(), route.map(str::to_owned));
        to_the_end(async move { hub.control_now(&who, &id, control, route.as_deref()).await }).await
    }

    async fn control_now(
        &self,
        who: &Identity,
        id: &str,
        control: Control,
        route: Option<&str>,
    ) -> Result<(), CommandError> {
        self.fresh().await?;
        let scoped = route.is_some();
        let edit = |definition: &mut Definition| {
            if !scoped {
                definition.set_stopped(control == Control::Stop);
            }
            Ok(())
        };
        let definition = self.client().edit(id, &who.actor(""), edit).await?.ok_or_else(|| not_found(id))?;
        let (docks, update) = (commanded(who, id, route), Bytes::from(definition.update_json()));
        first_error(self.fleet().order(&docks, (DockOp::Update, id), &update).await)?;
        first_error(self.fleet().order(&docks, (control.op(), id), &Bytes::new()).await)
    }

    /// Brings the deployed build to the docks where it should run, and ends its processes elsewhere. A definition that was
    /// never deployed has nothing to bring. A definition that the client gives is used as it is, which needs the right to
    /// change definitions.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`]; [`CommandError::Dock`]: the first dock that did not do it. While a node does not tell its
    /// docks nothing is done, because a process might run on too many of them.
    pub async fn sync(
        &self,
        who: &Arc<Identity>,
        id: &str,
        given: Option<Definition>,
        route: Option<&str>,
    ) -> Result<(), CommandError> {
        check(who, id, route.filter(|_| given.is_none()))?;
        let (hub, who, id, route) = (self.clone(), Arc::clone(who), id.to_owned(), route.map(str::to_owned));
        to_the_end(async move { hub.sync_now(&who, &id, given, route.as_deref()).await }).await
    }

    async fn sync_now(
        &self,
        who: &Identity,
        id: &str,
        given: Option<Definition>,
        route: Option<&str>,
    ) -> Result<(), CommandError> {
        self.fresh().await?;
        let stored = self.client().get(id)?.map(|(definition, _)| definition);
        let mut definition = given.clone().or(stored).ok_or_else(|| not_found(id))?;
        if definition.deployed().is_none() {
            return Ok(());
        }
        let (docks, unanswered) = self.fleet().infos().await;
        if let Some(node) = unanswered.first() {
            return Err(silent(*node));
        }
        let commanded = commanded(who, id, route);
        let docks: Vec<_> = docks.into_iter().filter(|dock| commanded.has(dock)).collect();
        let mut chosen = choose(&definition, &docks);
        if route.is_none() {
            // Within the change, so that of two who do this at once the second keeps the docks of the first.
            let keep = |stored: &mut Definition| {
                stored.set_docks(&choose(given.as_ref().unwrap_or(stored), &docks));
                Ok(())
            };
            let stored = self.client().edit(id, &who.actor(""), keep).await?;
            chosen = stored.map_or(chosen, |stored| stored.docks().map(str::to_owned).collect());
        }
        definition.set_docks(&chosen);
        let others = docks.into_iter().map(|dock| dock.id).filter(|dock| !chosen.contains(dock)).collect();
        let chosen = Selection::These(chosen);
        first_error(self.fleet().order(&chosen, (DockOp::Sync, id), &definition.json().into()).await)?;
        if !definition.is_stopped() {
            first_error(self.fleet().order(&chosen, (DockOp::Start, id), &Bytes::new()).await)?;
        }
        first_error(self.fleet().order(&Selection::These(others), (DockOp::Remove, id), &Bytes::new()).await)
    }

    /// What runs, by dock: objects with `id` and `list`. A dock that does not answer has an empty list and an `error`. Of
    /// the processes of a dock, those are told that the client may see. Beside that the nodes that did not answer.
    pub async fn ps(&self, who: &Identity, route: Option<&str>) -> (Vec<Value>, Vec<u64>) {
        let DockAnswers { answers, unanswered } =
            self.fleet().order(&selection(route), (DockOp::Ps, ""), &Bytes::new()).await;
        let mut docks: Vec<Value> = Vec::with_capacity(answers.len());
        for answer in answers {
            let DockAnswer { dock, result } = answer;
            docks.push(match result.and_then(|bytes| processes(&dock, &bytes)) {
                Ok((mut shown, list)) => {
                    let visible = |process: &Value| {
                        process.get("id").and_then(Value::as_str).is_some_and(|id| may_process(who, &dock, id))
                    };
                    shown.insert("list".to_owned(), list.into_iter().filter(visible).collect());
                    Value::Object(shown)
                }
                Err(error) => json!({ "id": dock, "list": [], "error": error }),
            });
        }
        docks.sort_by(|one, other| text(one, "id").cmp(text(other, "id")));
        (docks, unanswered)
    }

    /// Checks that a client may follow a process, or, without an id, those that it may see.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`]: there is no such definition.
    pub async fn check_follow(&self, who: &Identity, id: Option<&str>) -> Result<(), Fault> {
        let Some(id) = id else { return Ok(()) };
        check(who, id, None)?;
        self.fresh().await?;
        self.client().get(id)?.map(drop).ok_or_else(|| not_found(id))
    }
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// What a dock told of its processes, if it has the form that clients need: `list` an array of objects, their `id` a text,
/// `command` an array. The id of the dock is that which it has here. A stock dock tells an array of one such object.
fn processes(dock: &str, told: &[u8]) -> Result<(Map<String, Value>, Vec<Value>), String> {
    let told: Value = serde_json::from_slice(told).map_err(|error| format!("dock {dock} told no list: {error}"))?;
    let one = match told {
        Value::Array(docks) => docks.into_iter().next(),
        one => Some(one),
    };
    let Some(Value::Object(mut told)) = one else { return Err(format!("dock {dock} told no list")) };
    let Some(Value::Array(list)) = told.remove("list") else { return Err(format!("dock {dock} told no list")) };
    told.insert("id".to_owned(), dock.into());
    let list = list.into_iter().filter_map(|process| {
        let Value::Object(mut process) = process else { return None };
        process.get("id").filter(|id| id.is_string())?;
        if !process.get("command").is_some_and(Value::is_array) {
            process.insert("command".to_owned(), json!([]));
        }
        Some(Value::Object(process))
    });
    let list = list.collect();
    Ok((told, list))
}

/// On which of these docks a definition is to run: all that fit; with a limit those on which it is, and others at random.
fn choose(definition: &Definition, docks: &[DockInfo]) -> Vec<String> {
    let fitting = docks.iter().filter(|dock| definition.fits(&dock.id, &dock.tags, dock.default));
    let fitting: Vec<String> = fitting.map(|dock| dock.id.clone()).collect();
    let Some(limit) = definition.limit() else { return fitting };
    let present: Vec<&str> = definition.docks().collect();
    let (mut chosen, mut others): (Vec<String>, Vec<String>) =
        fitting.into_iter().partition(|dock| present.contains(&dock.as_str()));
    others.sort_by_cached_key(|_| Uuid::new_v4());
    chosen.extend(others);
    chosen.truncate(limit);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dock(id: &str, tags: &[&str], default: bool) -> DockInfo {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let (version, hostname, address, principal) = (String::new(), String::new(), String::new(), String::new());
        DockInfo { id: id.to_owned(), version, hostname, tags, default, node: 1, address, principal, since: 0 }
    }

    fn definition(members: Value) -> Definition {
        let mut definition = Definition::new("app");
        definition.merge(members.as_object().unwrap().clone()).unwrap();
        definition
    }

    #[test]
    fn a_process_stays_on_its_docks_and_the_limit_is_filled_up_with_others() {
        let docks: Vec<_> = (0..10).map(|number| dock(&format!("d{number}"), &["web"], true)).collect();
        assert_eq!(choose(&definition(json!({})), &docks).len(), 10);
        for _ in 0..20 {
            let chosen = choose(&definition(json!({"limit": 3, "docks": ["d7", "gone"], "tags": ["web"]})), &docks);
            assert_eq!((chosen.len(), chosen.first().map(String::as_str)), (3, Some("d7")), "{chosen:?}");
        }
        let fewer = choose(&definition(json!({"limit": 1, "docks": ["d1", "d2"]})), &docks);
        assert_eq!(fewer, ["d1"]);
        assert!(choose(&definition(json!({"tags": ["db"]})), &docks).is_empty());
    }

    #[test]
    fn what_a_dock_tells_reaches_clients_only_in_the_form_that_they_survive() {
        let told =
            br#"{"id":"claims","tags":["x"],"list":[{"id":"a","command":"x"},{"id":1},7,{"id":"b","command":["n"]}]}"#;
        let (shown, list) = processes("d1", told).unwrap();
        assert_eq!(Value::Object(shown), json!({"tags": ["x"], "id": "d1"}));
        assert_eq!(Value::Array(list), json!([{"id": "a", "command": []}, {"id": "b", "command": ["n"]}]));
        let stock = [&b"["[..], told, b"]"].concat();
        assert_eq!(processes("d1", &stock).unwrap().1.len(), 2);
        for wrong in [&b"null"[..], b"", b"{}", b"[]", b"[7]", br#"{"list":null}"#, br#"{"list":{}}"#] {
            assert!(processes("d1", wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}

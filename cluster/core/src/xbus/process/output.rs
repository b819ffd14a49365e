//! Actors send, close and forward on the outputs of their jobs.

use alloc::string::String;

use super::event::{Actors, Denied, JobOutput};
use super::row::{JobState, OutputRow, OutputState};
use super::step::{JobAt, Step};
use crate::xbus::id::Id;
use crate::xbus::pipeline::graph::Port;

/// What becomes of something on an output.
enum Use {
    /// The output is free, or this envelope is coming on it.
    Takes,
    /// It happened already, in this attempt.
    Again,
    /// It happened in an attempt that was lost: this time it is thrown away.
    Discard,
}

impl<A: Actors> Step<'_, A> {
    /// A fragment of an envelope comes.
    pub(super) fn output_begin(&mut self, wanted: &JobOutput) -> Result<(), Denied> {
        let (at, port) = self.output_of(wanted)?;
        if let Use::Takes = self.take(at, port, wanted)?
            && let Some(output) = self.output(at, port)
        {
            output.set_state(OutputState::Sending);
            output.envelope.clone_from(&wanted.envelope);
        }
        Ok(())
    }

    /// The envelope is complete: it goes out.
    pub(super) fn output_complete(&mut self, wanted: &JobOutput) -> Result<(), Denied> {
        let (at, port) = self.output_of(wanted)?;
        if let Use::Takes = self.take(at, port, wanted)? {
            self.sent(at, port, &wanted.envelope);
        }
        Ok(())
    }

    /// The envelope is in error. The actor may send another one, unless it said that it has ended.
    pub(super) fn output_fail(&mut self, wanted: &JobOutput) -> Result<(), Denied> {
        let (at, port) = self.output_of(wanted)?;
        let output = self.output(at, port).filter(|output| output.envelope == wanted.envelope);
        if let Some(output) = output.filter(|output| output.state() == OutputState::Sending) {
            output.set_state(OutputState::Open);
            output.envelope.clear();
            if self.job(at).is_some_and(|job| job.ending) {
                self.finish(at, JobState::Error);
            }
        }
        Ok(())
    }

    /// The actor sends nothing on the output.
    pub(super) fn output_close(&mut self, wanted: &JobOutput) -> Result<(), Denied> {
        let (at, port) = self.output_of(wanted)?;
        let (losses, live) = self.attempt(at);
        let Some(output) = self.process.nodes.get(at.node).and_then(|row| row.jobs.get(at.job)?.outputs.get(port))
        else {
            return Err(Denied::NoLiveJob);
        };
        let again = output.used_at < losses;
        match output.state() {
            OutputState::Open if live => {}
            OutputState::Sending => return Err(busy(names(wanted))),
            OutputState::Sent | OutputState::Closed if again => {
                if let Some(output) = self.output(at, port) {
                    output.used_at = losses;
                }
                self.effects.discard = true;
                return Ok(());
            }
            OutputState::Sent | OutputState::Closed => return Err(closed(names(wanted))),
            OutputState::Open => return Err(Denied::NoLiveJob),
        }
        if let Some(output) = self.output(at, port) {
            output.set_state(OutputState::Closed);
            output.used_at = losses;
        }
        self.end_if_complete(at);
        Ok(())
    }

    /// The envelope that the job got goes out.
    pub(super) fn forward(&mut self, wanted: &JobOutput) -> Result<(), Denied> {
        let (at, port) = self.output_of(wanted)?;
        let inputs = self.process.nodes.get(at.node).map_or(&[][..], |row| &row.inputs);
        if wanted.envelope.is_empty() || !inputs.iter().any(|input| input.envelope == wanted.envelope) {
            return Err(Denied::NotReceived(Id::from_slice(&wanted.envelope).map_err(|_| Denied::MalformedId)?));
        }
        if let Use::Takes = self.take(at, port, wanted)? {
            self.sent(at, port, &wanted.envelope);
        }
        Ok(())
    }

    fn sent(&mut self, at: JobAt, port: usize, envelope: &[u8]) {
        let (losses, _) = self.attempt(at);
        if let Some(output) = self.output(at, port) {
            output.set_state(OutputState::Sent);
            output.envelope = envelope.to_vec();
            output.used_at = losses;
        }
        self.pass_on(Port { node: at.node, port }, envelope);
        self.end_if_complete(at);
    }

    /// What becomes of an envelope on an output.
    fn take(&mut self, at: JobAt, port: usize, wanted: &JobOutput) -> Result<Use, Denied> {
        Id::from_slice(&wanted.envelope).map_err(|_| Denied::MalformedId)?;
        let (losses, live) = self.attempt(at);
        let names = names(wanted);
        let Some(output) = self.output(at, port) else { return Err(Denied::NoLiveJob) };
        let same = output.envelope == wanted.envelope;
        match output.state() {
            OutputState::Open | OutputState::Sending if !live => Err(Denied::NoLiveJob),
            OutputState::Open => Ok(Use::Takes),
            OutputState::Sending if same => Ok(Use::Takes),
            OutputState::Sending => Err(busy(names)),
            OutputState::Sent if same => Ok(Use::Again),
            // What was sent before the loss counts; the repetition is one envelope, in any number of fragments.
            _ if output.used_at < losses || output.repeated == wanted.envelope => {
                output.used_at = losses;
                output.repeated.clone_from(&wanted.envelope);
                self.effects.discard = true;
                Ok(Use::Discard)
            }
            OutputState::Sent | OutputState::Closed => Err(closed(names)),
        }
    }

    /// How often the job was given back, and whether it is live.
    fn attempt(&mut self, at: JobAt) -> (u32, bool) {
        self.job(at).map_or((0, false), |job| (job.losses, job.state().is_live()))
    }

    /// A job that is live, or that ended without a word and whose actor may still repeat what it did before; and the
    /// number of the output.
    fn output_of(&mut self, wanted: &JobOutput) -> Result<(JobAt, usize), Denied> {
        let at = self.find(&wanted.job)?;
        let state = self.job(at).map_or(JobState::Ready, |job| job.state());
        if !state.is_live() && state != JobState::Success {
            return Err(Denied::NoLiveJob);
        }
        let port = self.graph.node(at.node).and_then(|node| node.output(&wanted.output));
        let (node, output) = names(wanted);
        port.map(|port| (at, port)).ok_or(Denied::UnknownOutput(node, output))
    }

    fn output(&mut self, at: JobAt, port: usize) -> Option<&mut OutputRow> {
        self.job(at)?.outputs.get_mut(port)
    }
}

fn names(wanted: &JobOutput) -> (String, String) {
    (wanted.job.node.clone(), wanted.output.clone())
}

fn closed((node, output): (String, String)) -> Denied {
    Denied::OutputClosed(node, output)
}

fn busy((node, output): (String, String)) -> Denied {
    Denied::OutputBusy(node, output)
}

//! Readers beside an entry that is being applied: they wait for no write to the disk, and what they see fits together.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};

use rollbook_core::command::{Command, NamespaceDelete};

use super::rig::{Rig, temporary};
use crate::book::events::Book;
use crate::book::settle::*;

/// Where an entry stands before its batch is written: a compaction that RocksDB waits for would last here.
const WRITING: &str = "apply: a batch is to be written";
/// Where an entry stands when its rows can be read, and the machine that has it is not shown yet.
const WRITTEN: &str = "apply: a batch was written";

/// How long an answer may take that waits for nothing.
const LATE: Duration = Duration::from_secs(5);
/// How long an answer is waited for that must not come yet.
const SOON: Duration = Duration::from_millis(300);

/// A node that stands still in the middle of applying an entry.
struct Halted {
    go_on: Sender<()>,
    thread: JoinHandle<Rig>,
}

impl Halted {
    fn at(point: &'static str, mut rig: Rig, frame: Vec<u8>) -> Self {
        let (reached, halted) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let hook = move |name: &'static str| {
            if name == point {
                reached.send(()).ok();
                // Until the other end is dropped.
                wait.recv().ok();
            }
            false
        };
        let thread = thread::spawn(move || {
            crash::with(hook, || rig.apply(&[frame], 1000));
            rig
        });
        halted.recv_timeout(LATE).expect("the entry comes to that point");
        Self { go_on, thread }
    }

    fn go_on(self) -> Rig {
        drop(self.go_on);
        self.thread.join().unwrap()
    }
}

/// What somebody on another thread reads, when there is an answer.
fn read<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || answer.send(read()));
    answered
}

/// How many events a namespace has, as readers see it.
fn next(state: &State) -> Option<u64> {
    state.machine().head("a").map(|head| head.next)
}

#[test]
fn readers_are_answered_while_a_batch_is_being_written() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    rig.publish("a", 3, 10);
    let (state, book) = (Arc::clone(&rig.state), Book::new(Arc::clone(&rig.state), rig.log.clone()));
    let applied = *state.applied().borrow();
    let frame = rig.frame("a", 2, 10);
    let halted = Halted::at(WRITING, rig, frame);
    let of_machine = read({
        let state = Arc::clone(&state);
        move || next(&state)
    });
    assert_eq!(of_machine.recv_timeout(LATE), Ok(Some(4)), "as of the entry before");
    let of_book = read(move || book.read("a", 1, None, &mut |_, _, _| ControlFlow::Continue(())).unwrap());
    assert_eq!(of_book.recv_timeout(LATE), Ok(4));
    assert_eq!(*state.applied().borrow(), applied, "nothing is announced that cannot be seen");
    let rig = halted.go_on();
    assert_eq!((next(&rig.state), *rig.state.applied().borrow()), (Some(6), applied + 1));
}

#[test]
fn a_change_is_noted_for_others_when_they_can_see_it() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    rig.publish("a", 3, 10);
    drop(lock(&rig.state.changes).take_followed());
    let state = Arc::clone(&rig.state);
    let frame = rig.frame("a", 2, 10);
    let halted = Halted::at(WRITTEN, rig, frame);
    assert_eq!((next(&state), lock(&state.changes).take_followed().len()), (Some(4), 0));
    drop(halted.go_on());
    assert_eq!((next(&state), lock(&state.changes).take_followed().len()), (Some(6), 1));
}

#[test]
fn a_reader_whose_rows_are_gone_waits_for_the_reason_and_sees_no_damage() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    rig.publish("a", 3, 10);
    let book = Book::new(Arc::clone(&rig.state), rig.log.clone());
    let delete = Command::NamespaceDelete(NamespaceDelete { name: "a".to_owned() });
    let halted = Halted::at(WRITTEN, rig, delete.frame().unwrap());
    let of_book = read(move || book.read("a", 1, None, &mut |_, _, _| ControlFlow::Continue(())));
    assert!(matches!(of_book.recv_timeout(SOON), Err(RecvTimeoutError::Timeout)), "the namespace is still shown");
    drop(halted.go_on());
    assert_eq!(of_book.recv_timeout(LATE).expect("an answer").expect("no damage"), 1, "nothing more to read there");
}

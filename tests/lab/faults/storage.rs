//! Disks that lose what was not synced, fill up, flip bits, or are gone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Fault, Nemesis};
use crate::disk::RESERVE;
use crate::harness::ms;

/// Most bits that are flipped at a time.
const FLIPS_MAX: u64 = 8;

impl Nemesis<'_> {
    pub(super) fn power_leader(&mut self) {
        let leader = self.cluster.leader();
        self.during(Fault::PowerLeader, self.one(leader), |nemesis| {
            nemesis.power_cut(&[leader]);
            nemesis.last(1000, 2000);
            nemesis.cluster.spawn(leader);
        });
        self.cluster.await_ready(leader);
    }

    pub(super) fn power_all(&mut self) {
        let hosts = self.cluster.running();
        self.during(Fault::PowerAll, Self::everybody(hosts[0]), |nemesis| {
            nemesis.power_cut(&hosts);
            hosts.iter().for_each(|host| nemesis.cluster.spawn(*host));
        });
        hosts.iter().for_each(|host| self.cluster.await_ready(*host));
    }

    /// First every disk, then every process, as if the plug of all had been pulled.
    pub(super) fn power_cut(&mut self, hosts: &[u8]) {
        hosts.iter().for_each(|host| self.cluster.node(*host).volume.cut_power());
        hosts.iter().for_each(|host| self.cluster.kill(*host));
        hosts.iter().for_each(|host| self.cluster.node(*host).volume.power_on());
    }

    /// Below the reserve first, where publishes are refused; then not a byte, where the process may end.
    pub(super) fn disk_full(&mut self) {
        let leader = self.cluster.leader();
        let host = if self.rng.pick(0, 2) == 0 { leader } else { self.follower() };
        self.during(Fault::DiskFull, Self::everybody(host), |nemesis| {
            nemesis.cluster.node(host).volume.fill(RESERVE / 2);
            nemesis.last(1000, 2000);
            nemesis.cluster.node(host).volume.free();
            nemesis.last(300, 600);
            nemesis.cluster.node(host).volume.fill(0);
            nemesis.last(1000, 2000);
            nemesis.cluster.node(host).volume.free();
            if nemesis.cluster.has_ended(host) {
                nemesis.cluster.spawn(host);
            }
        });
        self.cluster.await_ready(host);
    }

    /// One node is damaged while it stands still. It recovers or refuses to start, and the others are not
    /// harmed by it, not even when it becomes the leader. If it refuses, a new node takes its place.
    pub(super) fn damage(&mut self) {
        let all = self.cluster.running();
        let host = self.any(&all);
        let mut refused = false;
        self.during(Fault::Damage, self.one(host), |nemesis| {
            nemesis.cluster.kill(host);
            let data = nemesis.cluster.node(host).volume.data();
            let done = nemesis.spoil(&data);
            let started = nemesis.cluster.refused(host);
            eprintln!("    {done}: {}", started.as_ref().map_or_else(String::as_str, |words| last_line(words)));
            refused = started.is_ok();
            if let Err(text) = started {
                assert_eq!(text, "it started", "{done}: a damaged node starts or exits with 1");
            }
        });
        if !refused {
            self.try_to_lead(host);
            // A flipped bit in a file that nobody has read yet may be found by any later start.
            if !self.cluster.has_ended(host) {
                self.cluster.kill(host);
            }
        }
        self.cluster.replace(host);
    }

    /// A node that came back damaged has its chance to harm the others: the present leader goes.
    fn try_to_lead(&mut self, host: u8) {
        let leader = self.cluster.leader();
        if leader != host {
            self.cluster.kill(leader);
            self.last(1500, 2500);
            self.cluster.spawn(leader);
            self.cluster.await_ready(leader);
        }
    }

    /// Flips some bits of a random file, or cuts its end off; says what was done.
    fn spoil(&mut self, data: &Path) -> String {
        let files = files(data);
        let place = usize::try_from(self.rng.pick(0, files.len() as u64)).unwrap_or(0);
        let (path, length) = &files[place];
        let file = OpenOptions::new().read(true).write(true).open(path).expect("open a file of the node");
        let name = path.strip_prefix(data).unwrap_or(path).display();
        if self.rng.pick(0, 3) == 0 {
            let left = self.rng.pick(0, *length);
            file.set_len(left).expect("cut a file");
            return format!("{name} cut from {length} to {left} bytes");
        }
        let offset = self.rng.pick(0, *length);
        let flips = self.rng.pick(1, FLIPS_MAX + 1);
        for _ in 0..flips {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).expect("read a byte");
            byte[0] ^= 1 << self.rng.pick(0, 8);
            file.write_all_at(&byte, offset).expect("write a byte");
        }
        format!("{name}: up to {flips} bits flipped at {offset} of {length}")
    }

    /// The old number is refused: its votes and its log are gone. Under a new one it is welcome.
    pub(super) fn lost_disk(&mut self) {
        let host = self.follower();
        self.during(Fault::LostDisk, self.one(host), |nemesis| {
            nemesis.cluster.kill(host);
            nemesis.cluster.node(host).volume.replace();
            match nemesis.cluster.refused(host) {
                Ok(words) => eprintln!("    refused: {}", last_line(&words)),
                Err(what) => panic!("a node without its data came back under its old number: {what}"),
            }
            std::thread::sleep(ms(200));
        });
        self.cluster.replace(host);
    }
}

fn last_line(words: &str) -> &str {
    words.lines().last().unwrap_or_default()
}

/// The files that hold data, with their lengths: log, tables, manifests, marks.
fn files(data: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list a folder of the node") {
            let path = entry.expect("read an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What a node writes for people, or for nobody.
            if ["LOG", "LOCK", "OPTIONS", "staging"].iter().any(|other| name.starts_with(other)) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => folders.push(path),
                Ok(meta) if meta.len() > 0 => found.push((path, meta.len())),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

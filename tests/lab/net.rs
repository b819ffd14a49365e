//! Several hosts on one machine: a network namespace for each node, one for the clients, one for the switch.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::system::{run, try_run};

/// The host number of the clients.
const CLIENTS: u8 = 100;

/// The network of one lab. Its guard removes it.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    tag: String,
    nodes: u8,
}

/// Which way packets between two nodes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Neither hears the other.
    Both,
    /// The first does not hear the second, but is heard.
    Deaf,
    /// Neither hears the other, and no sender is told: packets leave and do not arrive. What is dropped by the
    /// rules of its own host is an error for the sender, which tries again soon.
    Silent,
}

impl Net {
    /// Hosts `1..=nodes` and the clients, all on one switch. Names of interfaces and addresses may be the
    /// same in each lab: nothing leaves the namespaces.
    pub(crate) fn build(tag: &str, nodes: u8) -> Self {
        let net = Self { tag: tag.to_owned(), nodes };
        let switch = format!("{tag}-sw");
        run("ip", &["netns", "add", &switch]);
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for number in (1..=nodes).chain([CLIENTS]) {
            let (host, port, address) = (net.host(number), format!("v{number}"), format!("{}/24", ip(number)));
            run("ip", &["netns", "add", &host]);
            run("ip", &["-n", &host, "link", "set", "lo", "up"]);
            let ends = ["link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", "eth0", "netns", &host];
            run("ip", &ends);
            run("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            run("ip", &["-n", &host, "addr", "add", &address, "dev", "eth0"]);
            run("ip", &["-n", &host, "link", "set", "eth0", "up"]);
        }
        net
    }

    fn host(&self, number: u8) -> String {
        let tag = &self.tag;
        if number == CLIENTS { format!("{tag}-clients") } else { format!("{tag}-n{number}") }
    }

    /// Where the namespace of a node can be opened.
    pub(crate) fn path(&self, node: u8) -> String {
        format!("/run/netns/{}", self.host(node))
    }

    /// This thread, and all that it starts from now on, is a client.
    pub(crate) fn enter_clients(&self) {
        self.enter(CLIENTS);
    }

    fn enter(&self, number: u8) {
        let file = File::open(self.path(number)).expect("open a namespace");
        let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        moved.expect("enter a namespace");
    }

    /// From now on packets between these nodes are lost, without a word to anybody.
    pub(crate) fn cut(&self, node: u8, others: &[u8], loss: Loss) {
        let mut rules = String::from("*filter\n");
        for other in others.iter().filter(|other| **other != node) {
            rules.push_str(&format!("-A INPUT -s {} -j DROP\n", ip(*other)));
            if loss == Loss::Both {
                rules.push_str(&format!("-A OUTPUT -d {} -j DROP\n", ip(*other)));
            }
        }
        rules.push_str("COMMIT\n");
        self.filter(node, &["--noflush"], &rules);
        if loss == Loss::Silent {
            others.iter().filter(|other| **other != node).for_each(|other| self.cut(*other, &[node], Loss::Deaf));
        }
    }

    /// From now on a node cannot dial a port of the others. They can dial it, and it answers them.
    pub(crate) fn keep_from_dialing(&self, node: u8, others: &[u8], port: u16) {
        let rules = format!("*filter\n-A INPUT -s {} -p tcp --dport {port} -j DROP\nCOMMIT\n", ip(node));
        others.iter().filter(|other| **other != node).for_each(|other| self.filter(*other, &["--noflush"], &rules));
    }

    /// Every packet arrives again.
    pub(crate) fn heal(&self) {
        for node in 1..=self.nodes {
            self.filter(node, &[], "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n");
        }
    }

    /// From now on that many megabits a second reach a node, from everybody together.
    pub(crate) fn slow(&self, node: u8, megabits: u64) {
        let (switch, port, rate) = (format!("{}-sw", self.tag), format!("v{node}"), format!("{megabits}mbit"));
        let shape =
            ["qdisc", "replace", "dev", &port, "root", "tbf", "rate", &rate, "burst", "64kb", "latency", "50ms"];
        let args: Vec<&str> = ["-n", switch.as_str()].into_iter().chain(shape).collect();
        run("tc", &args);
    }

    /// As much as the machine can again.
    pub(crate) fn fast(&self, node: u8) {
        let (switch, port) = (format!("{}-sw", self.tag), format!("v{node}"));
        // A port that was never slow has nothing to take away.
        drop(try_run("tc", &["-n", &switch, "qdisc", "del", "dev", &port, "root"], ""));
    }

    /// All rules in one step.
    fn filter(&self, node: u8, flags: &[&str], rules: &str) {
        let enter = format!("--net={}", self.path(node));
        let args: Vec<&str> = [enter.as_str(), "iptables-restore"].iter().chain(flags).copied().collect();
        try_run("nsenter", &args, rules).unwrap_or_else(|error| panic!("{error}\n{rules}"));
    }
}

fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// An address of a node.
pub(crate) fn address(node: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(ip(node)), port)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::harness::ms;
    use crate::system::{Guard, missing};

    /// A socket of that host.
    fn socket(net: &Net, number: u8) -> UdpSocket {
        let net = net.clone();
        let bound = std::thread::spawn(move || {
            net.enter(number);
            UdpSocket::bind((ip(number), 999)).expect("bind a socket")
        });
        let socket = bound.join().expect("a thread in the namespace");
        socket.set_read_timeout(Some(ms(400))).expect("set the time-out");
        socket
    }

    fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
        let address = to.local_addr().expect("an address");
        // What the own rules forbid is an error at once.
        from.send_to(b"hello", address).is_ok() && to.recv(&mut [0; 8]).is_ok()
    }

    /// How long 150 packets of a kilobyte take, one behind the other.
    fn takes(from: &UdpSocket, to: &UdpSocket) -> Duration {
        let (address, began) = (to.local_addr().expect("an address"), Instant::now());
        for _ in 0..150 {
            from.send_to(&[0; 1000], address).expect("send a packet");
            to.recv(&mut [0; 1000]).expect("receive a packet");
        }
        began.elapsed()
    }

    #[test]
    fn packets_are_lost_where_a_link_is_cut_and_nowhere_else() {
        if let Some(why) = missing() {
            eprintln!("skipped: {why}");
            return;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let tag = format!("rbnet{}", std::process::id());
        let _guard = Guard::start(&tag, dir.path());
        let net = Net::build(&tag, 3);
        let [one, two, three, client] = [1, 2, 3, CLIENTS].map(|number| socket(&net, number));
        let links =
            || [(&one, &two), (&two, &one), (&one, &three), (&client, &one)].map(|(from, to)| arrives(from, to));
        assert_eq!(links(), [true; 4], "at first");
        net.cut(1, &[1, 2], Loss::Both);
        assert_eq!(links(), [false, false, true, true], "cut");
        net.heal();
        assert_eq!(links(), [true; 4], "healed");
        net.cut(1, &[1, 2], Loss::Deaf);
        assert_eq!(links(), [true, false, true, true], "deaf");
        net.heal();
        net.cut(1, &[1, 2], Loss::Silent);
        assert_eq!(links(), [false, false, true, true], "silent");
        net.heal();
        assert_eq!(links(), [true; 4], "healed again");
        net.slow(2, 1);
        // A burst of 64 KiB is free.
        assert!(takes(&one, &two) > ms(500), "a slow link");
        assert!(takes(&one, &three) < ms(500), "another is not slow");
        net.fast(2);
        assert!(takes(&one, &two) < ms(500), "fast again");
    }
}

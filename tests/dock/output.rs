//! Standard output and standard error.

use std::fs;
use std::time::{Duration, Instant};

use rollbook::doors::hms::wire::op::Op;
use serde_json::json;

use crate::dock::agent::{Agent, is_alive, wait_for};
use crate::dock::hub::{Hub, PATIENCE};

#[test]
fn output_goes_to_files_always_and_to_the_hub_when_it_subscribed() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let script = "echo early; while [ ! -e go ]; do sleep 0.02; done; echo out; echo err >&2; sleep 1000";
    dock.run("app", json!({"start": format!("sh -c '{script}'")}));
    wait_for("the file has the line", || {
        (fs::read_to_string(agent.path("logs/app/out.log")).ok()? == "early\n").then_some(())
    });
    dock.request(Op::Subscribe, "app", "").unwrap();
    fs::write(agent.path("work/app/go"), "").unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = dock.next_event();
        if event.op != Op::Spawn {
            seen.push((event.op, String::from_utf8_lossy(&event.payload).into_owned()));
        }
    }
    seen.sort_by_key(|(op, _)| op.code());
    assert_eq!(seen, [(Op::Stdout, "out\n".into()), (Op::Stderr, "err\n".into())]);
    assert_eq!(fs::read_to_string(agent.path("logs/app/err.log")).unwrap(), "err\n");
}

#[test]
fn a_service_that_closes_its_output_runs_on() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "*", "").unwrap();
    dock.run("app", json!({"start": "sh -c 'exec >&- 2>&-; sleep 1000'"}));
    let pid = dock.spawned("app");
    assert!(dock.try_next_event(Duration::from_millis(200)).is_none());
    assert!(is_alive(pid));
}

/// Counts up to `lines` in steps of 5000, about 100,000 lines in a second.
fn counting(lines: usize) -> String {
    let step = "seq -f \"line %.0f of a service that writes a lot\" $((i+1)) $((i+5000)); i=$((i+5000)); sleep 0.04";
    format!("sh -c 'i=0; while [ $i -lt {lines} ]; do {step}; done; exit 5'")
}

#[test]
fn a_hundred_thousand_lines_a_second_arrive_whole_and_in_order_and_before_the_exit() {
    const LINES: usize = 300_000;
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &["--log-bytes-max", "4000000"]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "app", "").unwrap();
    let since = Instant::now();
    dock.run("app", json!({"start": counting(LINES), "restart": "never"}));
    let mut text = Vec::new();
    loop {
        let event = dock.next_event();
        match event.op {
            Op::Stdout => {
                assert!(event.payload.len() <= 32 * 1024 && event.payload.ends_with(b"\n"));
                text.extend_from_slice(&event.payload);
            }
            Op::Stderr => panic!("{}", String::from_utf8_lossy(&event.payload)),
            Op::Exit => break,
            _ => {}
        }
    }
    let took = since.elapsed();
    println!("{:.0} lines/s", LINES as f64 / took.as_secs_f64());
    let text = String::from_utf8(text).unwrap();
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {} of a service that writes a lot", number + 1));
        count += 1;
    }
    assert_eq!(count, LINES);
}

#[test]
fn a_hub_that_does_not_read_blocks_no_service_and_hears_how_much_it_missed() {
    const LINES: usize = 1_500_000;
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &["--log-bytes-max", "3000000", "--ping-timeout", "60s"]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "app", "").unwrap();
    let script = format!("seq -f \"line %.0f of a service that writes a lot\" 1 {LINES}; touch done; sleep 1000");
    dock.run("app", json!({"start": format!("sh -c '{script}'")}));
    wait_for("the service is through", || agent.path("work/app/done").exists().then_some(()));
    let (mut read, mut dropped) = (0, 0);
    let mut last = String::new();
    while !last.ends_with(&format!("line {LINES} of a service that writes a lot\n")) {
        let event = dock.next_event();
        let payload = String::from_utf8_lossy(&event.payload).into_owned();
        match event.op {
            Op::Stdout => {
                read += payload.len();
                last = payload;
            }
            Op::Stderr => {
                let bytes = payload.strip_prefix("rollbook: ").unwrap();
                dropped += bytes.strip_suffix(" bytes of output were dropped\n").unwrap().parse::<usize>().unwrap();
            }
            _ => {}
        }
    }
    let written: usize =
        (1..=LINES).map(|number| format!("line {number} of a service that writes a lot\n").len()).sum();
    println!("{written} bytes written, {read} read, {dropped} dropped");
    assert_eq!(read + dropped, written);
    assert!(dropped > 0);
    wait_for("the files are bounded", || (kept_bytes(&agent) < 25_000_000).then_some(()));
}

/// Bytes of the files of output. A file that is renamed meanwhile counts when the next look finds it.
fn kept_bytes(agent: &Agent) -> u64 {
    let files = fs::read_dir(agent.path("logs/app")).unwrap();
    files.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

#[test]
fn a_loud_service_does_not_keep_the_output_of_others_back() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &["--log-bytes-max", "4000000"]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "*", "").unwrap();
    let loud = "while true; do seq -f \"line %.0f of a service that writes a lot\" 1 5000; sleep 0.005; done";
    dock.run("loud", json!({"start": format!("sh -c '{loud}'")}));
    let quiet = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.05; done; exit 5";
    dock.run("quiet", json!({"start": format!("sh -c '{quiet}'"), "restart": "never"}));
    let (mut out, mut err) = (String::new(), String::new());
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{out}{err}");
        let event = dock.next_event();
        // A hub that reads slowly, so that output waits for room.
        std::thread::sleep(Duration::from_millis(1));
        let text = String::from_utf8_lossy(&event.payload);
        match (event.id.as_str(), event.op) {
            ("quiet", Op::Stdout) => out.push_str(&text),
            ("quiet", Op::Stderr) => err.push_str(&text),
            ("quiet", Op::Exit) => break,
            _ => {}
        }
    }
    let lines = |name: &str| (1..=20).map(|number| format!("{name} {number}\n")).collect::<String>();
    assert_eq!((out, err), (lines("out"), lines("err")), "all that was written came before the exit");
}

#[test]
fn a_line_of_a_gibibyte_is_bounded_in_memory_and_on_the_disk() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "app", "").unwrap();
    let script = "head -c 1073741824 /dev/zero; echo; echo end >&2; sleep 1000";
    dock.run("app", json!({"start": format!("sh -c '{script}'")}));
    let mut end = false;
    while !end {
        let event = dock.next_event();
        assert!(event.payload.len() <= 32 * 1024);
        end = event.op == Op::Stderr && event.payload.ends_with(b"end\n");
    }
    let peak = status_kib(agent.pid(), "VmHWM:");
    assert!(peak < 64 * 1024, "{peak} KiB at the peak");
    wait_for("the files are bounded", || (kept_bytes(&agent) <= 7 * (16 << 20)).then_some(()));
}

#[test]
fn an_idle_dock_is_small() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    for number in 0..5 {
        dock.run(&format!("app{number}"), json!({"start": "sleep 1000"}));
    }
    dock.ps("app0");
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", agent.pid())).unwrap();
    let private = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    let kib: u64 = private.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("{kib} KiB private");
    assert!(kib < 6 * 1024, "{kib} KiB private");
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

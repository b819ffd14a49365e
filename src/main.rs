//! `rollbook`: one binary for the node, its client commands and its benchmark.

use std::process::ExitCode;

use clap::Parser as _;
use rollbook::app::cli::args::{Cli, Command};
use rollbook::app::node::run::{self, ExtraDoors};
use rollbook::app::{bench, cli, dock};

// RocksDB's C++ allocates through it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == dock::CHILD) {
        // Between the agent of a dock and its processes, before anything has started a thread.
        return ExitCode::from(dock::run_child(arguments));
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(args) => match args.load() {
            Ok(loaded) => cli::exit_of_node(run::serve(&loaded, args.options(), ExtraDoors::default())),
            Err(error) => cli::exit(Err(error.into())),
        },
        Command::Dock(args) => cli::exit(dock::command::run(args)),
        Command::Client(command) => cli::exit(cli::run(&cli.global, command)),
        Command::Bench(args) => cli::exit(bench::run(&cli.global, args)),
    }
}

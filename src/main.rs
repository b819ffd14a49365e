//! `rollbook`: one binary for the node, its client commands and its benchmark.

use std::process::ExitCode;

use clap::Parser as _;
use rollbook::app::cli::args::{Cli, Command};
use rollbook::app::node::run::{self, ExtraDoors};
use rollbook::app::{bench, cli};

// RocksDB's C++ allocates through it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(args) => match args.load() {
            Ok(loaded) => cli::exit_of_node(run::serve(&loaded, args.options(), ExtraDoors::default())),
            Err(error) => cli::exit(Err(error.into())),
        },
        Command::Client(command) => cli::exit(cli::run(&cli.global, command)),
        Command::Bench(args) => cli::exit(bench::run(&cli.global, args)),
    }
}

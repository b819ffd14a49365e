//! `bench floor`: puts the same load on a handler that only reads the body and answers 202. An HTTP publish cannot
//! cost less on this machine.

use std::env;
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;

use actix_web::http::StatusCode;
use actix_web::rt::System;
use actix_web::web::{Bytes, to};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::{Context as _, Result};

use super::publish::cases;
use crate::app::bench::args::{FloorArgs, FloorServerArgs};
use crate::app::bench::child::{ScratchDir, Server};
use crate::app::bench::client::http::Target;
use crate::app::bench::client::payload::Shape;
use crate::app::bench::context::Context;
use crate::app::bench::figures::Report;
use crate::app::bench::meter::Meter;
use crate::app::cli::access::resolve::Access;
use crate::app::cli::shared::output::print;

/// Runs `floor` for each number of connections.
pub(in crate::app::bench) async fn run(context: &Context, args: &FloorArgs) -> Result<Report> {
    let scratch = ScratchDir::new(&env::temp_dir())?;
    let (_server, floor) = start(context, args.workers, scratch.path()).await?;
    let shape = Shape::single(context.subject(), context.size)?;
    cases(&floor, "floor", &shape, &args.connections, None).await
}

/// Starts the baseline server, and returns the context with the address of that server.
pub(in crate::app::bench) async fn start(
    context: &Context,
    workers: usize,
    scratch: &Path,
) -> Result<(Server, Context)> {
    let arguments = ["bench", "floor-server", "--workers", &workers.to_string()].map(str::to_owned);
    let server = Server::start(arguments.to_vec(), &[], scratch.join("floor.log")).await?;
    let target = Target::resolve(&server.url("floor")?, &Access::default()).await?;
    let floor = Context { target, web: None, meter: Meter::Process(server.pid()), ..context.clone() };
    Ok((server, floor))
}

/// The baseline server: prints its URL, and serves until its standard input ends.
pub(in crate::app::bench) fn serve(args: &FloorServerArgs) -> Result<()> {
    let bound = HttpServer::new(|| App::new().default_service(to(accept)))
        .workers(args.workers)
        .tcp_nodelay(true)
        .bind(args.addr)
        .with_context(|| format!("cannot listen on {}", args.addr))?;
    let address = bound.addrs().first().copied().unwrap_or(args.addr);
    print(&format!("floor http://{address}/\nready"))?;
    System::new().block_on(async move {
        let server = bound.run();
        let handle = server.handle();
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // The input ends when the benchmark is gone, even if it was killed.
            io::stdin().lock().read_to_end(&mut Vec::new()).ok();
            System::new().block_on(handle.stop(false));
        })?;
        server.await.map_err(anyhow::Error::from)
    })
}

async fn accept(body: Bytes) -> HttpResponse {
    let length = body.len();
    HttpResponse::build(StatusCode::ACCEPTED)
        .insert_header(("X-BUS-EVENT-ID", "e_dc0unahksdu9ruucpt80"))
        .insert_header(("X-BUS-EVENT-CREATED-AT", "2026-01-01T00:00:00.000000001Z"))
        .insert_header(("X-BUS-EVENT-INDEX", length))
        .finish()
}

//! Listens for HTTP, and builds an application of actix-web on each thread.
//!
//! Routing, origins and refusals belong to the application, for an upgrade as for any other request. A connection that
//! the application accepts as a WebSocket leaves the server together with its socket, so that an idle WebSocket keeps
//! no buffers of the server.

use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::{Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::settings::HttpListener;
use super::worker::Worker;

/// Serves an application that each thread builds. Idle connections are closed when `stopping` is cancelled.
///
/// # Errors
/// The listener cannot be used.
pub fn listen<F, I, S, B>(
    builder: ServerBuilder,
    socket: TcpListener,
    listener: Arc<HttpListener>,
    stopping: CancellationToken,
    application: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let name = listener.limits.settings.name;
    let build = move || {
        let (application, listener, stopping) = (application.clone(), Arc::clone(&listener), stopping.clone());
        fn_factory(move || {
            let factory = map_config(application().into_factory(), |()| AppConfig::default());
            let (listener, stopping) = (Arc::clone(&listener), stopping.clone());
            async move {
                let service = factory.new_service(()).await.map_err(|error| {
                    tracing::error!(?error, "the application cannot be built");
                })?;
                let thread = Rc::new(Worker::new(service, listener, stopping.clone()));
                let stops = Rc::clone(&thread);
                actix_web::rt::spawn(async move {
                    stopping.cancelled().await;
                    stops.stop();
                });
                Ok::<_, ()>(fn_service(move |io: TcpStream| {
                    let thread = Rc::clone(&thread);
                    async move {
                        connection::serve(io, thread).await;
                        Ok::<_, Infallible>(())
                    }
                }))
            }
        })
    };
    Ok(builder.listen(name, socket, build)?.run())
}

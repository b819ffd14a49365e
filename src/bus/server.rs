//! The server of the web listener: actix-web's, but a WebSocket leaves it with its connection.
//!
//! An application answers an upgrade as any other request: routing, origins and refusals are its own. What it accepts
//! is taken out of the HTTP server together with its socket, so that an idle WebSocket keeps none of its buffers and
//! nothing stands between it and the kernel.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use actix_codec::{Framed, FramedParts};
use actix_http::body::{BoxBody, MessageBody, to_bytes_limited};
use actix_http::h1::{Codec, Message};
use actix_http::{HttpMessage as _, HttpService, Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service, map_config,
};
use actix_web::Error;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use bytes::BytesMut;
use futures_util::SinkExt as _;
use tokio_util::sync::CancellationToken;

/// Largest answer to an upgrade that is refused, bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The connection of an upgrade request, and what was read behind its head.
#[derive(Debug)]
pub struct Taken {
    /// The socket.
    pub io: TcpStream,
    /// Read already.
    pub rest: BytesMut,
}

/// Where the application finds it, among the extensions of the request.
#[derive(Debug, Clone)]
pub struct Slot(Rc<RefCell<Option<Taken>>>);

impl Slot {
    /// Takes the connection; from now on it is not the server's any more.
    #[must_use]
    pub fn take(&self) -> Option<Taken> {
        self.0.borrow_mut().take()
    }
}

/// Serves an application that each worker builds. When `stopping` is cancelled idle connections are closed.
///
/// # Errors
/// The listener cannot be used.
pub fn listen<F, I, S, B>(
    builder: ServerBuilder,
    listener: TcpListener,
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
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let build = move || {
        let (upgrades, stopping) = (application.clone(), stopping.clone());
        let make = move || {
            let application = upgrades();
            async move {
                let factory = map_config(application.into_factory(), |()| AppConfig::default());
                let service = Rc::new(factory.new_service(()).await.map_err(|error| {
                    tracing::error!(?error, "the application cannot be built");
                })?);
                Ok::<_, ()>(fn_service(move |(request, framed)| {
                    let service = Rc::clone(&service);
                    async move { upgrade(&*service, request, framed).await }
                }))
            }
        };
        let factory = application().into_factory().map_err(|error| error.into().error_response());
        HttpService::build()
            .tcp_nodelay(true)
            .graceful_shutdown_signal(move || stopping.clone().cancelled_owned())
            .upgrade(fn_factory(make))
            .finish(map_config(factory, |()| AppConfig::default()))
            .tcp()
    };
    Ok(builder.listen("web", listener, build)?.run())
}

/// Lets the application answer an upgrade; what it does not take gets its answer and ends.
async fn upgrade<S, B>(service: &S, request: Request, framed: Framed<TcpStream, Codec>) -> Result<(), Error>
where
    S: Service<Request>,
    S::Error: Into<Error>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    let FramedParts { io, codec, read_buf, .. } = framed.into_parts();
    let slot = Slot(Rc::new(RefCell::new(Some(Taken { io, rest: read_buf }))));
    request.extensions_mut().insert(slot.clone());
    let response = match service.call(request).await {
        Ok(response) => response.into().map_into_boxed_body(),
        Err(error) => error.into().error_response().into(),
    };
    let Some(Taken { io, .. }) = slot.take() else { return Ok(()) };
    refuse(Framed::new(io, codec), response).await
}

async fn refuse(mut framed: Framed<TcpStream, Codec>, response: Response<BoxBody>) -> Result<(), Error> {
    let (mut head, body) = response.into_parts();
    head.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    let size = body.size();
    let body =
        to_bytes_limited(body, REFUSAL_BYTES_MAX).await.map_err(actix_web::error::ErrorInternalServerError)??;
    framed.send(Message::Item((head, size))).await?;
    if !body.is_empty() {
        framed.send(Message::Chunk(Some(body))).await?;
    }
    Ok(())
}

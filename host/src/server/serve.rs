//! One connection, from the first byte to the last: who comes, what is spoken, and its requests.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::client::Client;
use super::connection::Connection;
use super::gate::Gate;
use super::tls::{HTTP2, Tls};
use super::{Drain, http2, proxy_protocol};
use crate::gateway::Gateway;
use crate::sandbox::pace;

/// What a connection has to begin with.
pub(super) struct Way {
    pub(super) tls: Option<Tls>,
    /// A header of the PROXY protocol, before anything else.
    pub(super) proxied: bool,
}

/// With what every connection of HTTP/2 begins (RFC 9113 §3.4), and none of HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a client until either side ends the connection. What comes before the first request counts as a part of its head:
/// it has `header_time`.
pub(super) async fn serve(client: Client, connection: Arc<Connection>, way: Way, gateway: Arc<Gateway>, drain: &Drain) {
    if let Err(error) = greet(client, connection, way, gateway, drain).await {
        tracing::debug!(target: "wasgi::connection", "connection ended: {error:#}");
    }
}

async fn greet(
    mut client: Client,
    connection: Arc<Connection>,
    way: Way,
    gateway: Arc<Gateway>,
    drain: &Drain,
) -> anyhow::Result<()> {
    if way.proxied && !before_drain(drain, introduce(&mut client, &connection)).await? {
        return Ok(());
    }
    let Some(tls) = way.tls else {
        connection.is_served_by_this_task().await;
        if !before_drain(drain, look(&mut client, &connection)).await? {
            return Ok(());
        }
        // What few connections need is apart, so that the others do not hold room for it.
        return match client.ahead().starts_with(PREFACE) {
            true => Box::pin(http2::serve(client, connection, gateway, drain)).await,
            false => serve_http1(client, connection, gateway, drain).await,
        };
    };
    Box::pin(async {
        let mut stream = None;
        let accept = async {
            stream = Some(TlsAcceptor::from(tls.0).accept(client).await.context("TLS")?);
            Ok(())
        };
        before_drain(drain, accept).await?;
        let Some(stream) = stream else { return Ok(()) };
        match stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            true => http2::serve(stream, connection, gateway, drain).await,
            false => serve_http1(stream, connection, gateway, drain).await,
        }
    })
    .await
}

/// Waits for `step`; false where the drain begins before: who has not yet asked for anything loses nothing.
async fn before_drain(drain: &Drain, step: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<bool> {
    tokio::select! {
        done = step => done.map(|()| true),
        () = drain.begins() => Ok(false),
    }
}

/// Reads what a proxy says of its client. Whoever is not trusted cannot connect to such a listener.
async fn introduce(client: &mut Client, connection: &Connection) -> anyhow::Result<()> {
    anyhow::ensure!(
        connection.trusted.trusts_peer(connection.origin().remote),
        "the peer is not in forwarded_allow_ips, and so may not speak the PROXY protocol"
    );
    connection.introduce(proxy_protocol::read(client).await?);
    Ok(())
}

/// Reads ahead until it is clear whether HTTP/2 is spoken without having been agreed on. Who says nothing for too long is told
/// so in HTTP/1.
async fn look(client: &mut Client, connection: &Connection) -> anyhow::Result<()> {
    loop {
        let ahead = client.ahead();
        let known = ahead.len().min(PREFACE.len());
        if known == PREFACE.len() || ahead[..known] != PREFACE[..known] {
            return Ok(());
        }
        let mut further = std::pin::pin!(client.look_further());
        let found = std::future::poll_fn(|context| match further.as_mut().poll(context) {
            Poll::Pending if connection.was_told_overdue() => Poll::Ready(Ok(false)),
            polled => polled,
        });
        if !found.await? {
            return Ok(());
        }
    }
}

async fn serve_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: Arc<Connection>,
    gateway: Arc<Gateway>,
    drain: &Drain,
) -> anyhow::Result<()> {
    let edge = Arc::clone(&connection.edge);
    connection.is_served_by_this_task().await;
    let gate = Gate::new(stream, Arc::clone(&connection), Arc::clone(&gateway));
    let service = service_fn(|request| {
        let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&connection));
        async move {
            let response = gateway.serve(request, &connection).await;
            others_first().await;
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        // Not pipeline_flush: with it hyper takes blocks without end from a guest whose client takes none.
        .max_headers(edge.request_headers as usize)
        .max_buf_size(usize::try_from(edge.request_head_bytes).expect("config bounds the head"))
        .serve_connection(TokioIo::new(gate), service);
    let served = std::pin::pin!(served);
    let ended = until_end(served, |served| served.graceful_shutdown(), &connection, drain).await;
    if let Err(error) = &ended
        && error.is_parse()
    {
        gateway.was_refused(error, &connection);
    }
    Ok(ended?)
}

/// Before a response is written, requests that have arrived with it are answered, so that the responses go out one after another.
/// A write wakes whoever waits for it: one peer with many connections (a proxy, most often) is then woken once for all of them,
/// and not for each, which costs more than a small response itself. Where guests compute for long, nobody waits for them.
async fn others_first() {
    let mut waits = !pace::is_crowded();
    std::future::poll_fn(|context| {
        if std::mem::take(&mut waits) {
            // To the end of this worker's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// Drives a connection, and tells it when the drain begins.
pub(super) async fn until_end<S: Future>(
    mut served: Pin<&mut S>,
    tell: impl Fn(Pin<&mut S>),
    connection: &Connection,
    drain: &Drain,
) -> S::Output {
    let mut told = std::pin::pin!(drain.told.notified());
    let mut listening = false;
    std::future::poll_fn(|context| {
        // This runs for every request: asking once to be woken is enough, the task's waker does not change.
        if !listening {
            listening = true;
            let _: Poll<()> = told.as_mut().poll(context);
        }
        if drain.has_begun() {
            tell(served.as_mut());
        }
        let polled = served.as_mut().poll(context);
        if polled.is_pending() && connection.take_held_end() {
            context.waker().wake_by_ref();
        }
        polled
    })
    .await
}

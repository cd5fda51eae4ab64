//! One connection, from the first byte to the last.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::Drain;
use super::client::Client;
use super::connection::Connection;
use crate::gateway::Gateway;

pub(super) async fn serve_connection(
    client: Client,
    connection: Arc<Connection>,
    gateway: Arc<Gateway>,
    drain: &Drain,
) {
    let edge = Arc::clone(&connection.edge);
    let service = service_fn(move |request| {
        let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&connection));
        async move { Ok::<_, std::convert::Infallible>(gateway.serve(request, &connection).await) }
    });
    let served = http1::Builder::new()
        // Not pipeline_flush: with it hyper takes blocks without end from a guest whose client takes none.
        .max_headers(edge.request_headers as usize)
        .max_buf_size(usize::try_from(edge.request_head_bytes).expect("config bounds the head"))
        .serve_connection(TokioIo::new(client), service);
    let mut served = std::pin::pin!(served);
    let mut told = std::pin::pin!(drain.told.notified());
    let mut listening = false;
    let result = std::future::poll_fn(|context| {
        // This runs for every request: asking once to be woken is enough, the task's waker does not change.
        if !listening {
            listening = true;
            let _ = told.as_mut().poll(context);
        }
        if drain.begun.load(Ordering::SeqCst) {
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(context)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(target: "wasgi::connection", "connection ended: {error}");
    }
}

//! A client of HTTP/2 that does what it is told, and no more: windows stay closed unless somebody opens them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, request};
use tests::{PATIENCE, tcp};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A client's connection. Its frames are read and written meanwhile, in another thread.
pub(crate) struct Http2 {
    pub(crate) runtime: Runtime,
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// How it broke off, if it did.
    pub(crate) reset: Option<Reason>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn environ(&self) -> BTreeMap<String, String> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

pub(crate) fn get(target: &str) -> request::Builder {
    Request::get(format!("http://test.example{target}"))
}

impl Http2 {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::with(address, &Builder::new())
    }

    #[track_caller]
    pub(crate) fn with(address: SocketAddr, builder: &Builder) -> Self {
        let runtime = runtime();
        let shaken = runtime.block_on(async { builder.handshake(stream(address)).await });
        Self::over(runtime, shaken)
    }

    #[track_caller]
    pub(crate) fn over<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static>(
        runtime: Runtime,
        shaken: Result<(SendRequest<Bytes>, Connection<T, Bytes>), h2::Error>,
    ) -> Self {
        let (send, connection) = shaken.expect("the socket takes the preface");
        let connection = runtime.spawn(connection);
        Self { runtime, send, connection }
    }

    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let waited = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
        waited.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    /// Sends a head; true says that nothing follows.
    #[track_caller]
    pub(crate) fn begin(&mut self, request: request::Builder, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = self.wait("the connection takes a request", self.send.clone().ready());
        self.send = ready.expect("the connection is open");
        self.send.send_request(request.body(()).expect("it is right"), ends).expect("the connection is open")
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: request::Builder) -> Answer {
        let (response, _) = self.begin(request, true);
        self.answer(response).unwrap_or_else(|reason| panic!("no head, but {reason}"))
    }

    /// All of a response; the reason where not even a head came.
    pub(crate) fn answer(&self, response: ResponseFuture) -> Result<Answer, Reason> {
        let head = self.wait("a head", response).map_err(|error| error.reason().unwrap_or(Reason::NO_ERROR))?;
        let (head, mut body) = head.into_parts();
        let mut answer = Answer { status: head.status.as_u16(), body: Vec::new(), reset: None };
        while let Some(block) = self.wait("the body goes on", body.data()) {
            match block {
                Ok(block) => {
                    body.flow_control().release_capacity(block.len()).expect("that much was received");
                    answer.body.extend_from_slice(&block);
                }
                Err(error) => {
                    answer.reset = Some(error.reason().unwrap_or(Reason::NO_ERROR));
                    break;
                }
            }
        }
        Ok(answer)
    }

    /// Waits for the head and leaves the body alone: no window opens for it.
    #[track_caller]
    pub(crate) fn body(&self, response: ResponseFuture) -> RecvStream {
        self.wait("a head", response).expect("it is answered").into_body()
    }

    /// Waits for the end of the connection.
    #[track_caller]
    pub(crate) fn end(self) -> Result<(), h2::Error> {
        let Self { runtime, connection, .. } = self;
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, connection).await });
        ended.expect("waited in vain: the connection ends").expect("the client does not panic")
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads can be started")
}

pub(crate) fn stream(address: SocketAddr) -> tokio::net::TcpStream {
    let stream = tcp(address);
    stream.set_nonblocking(true).expect("it is a socket");
    tokio::net::TcpStream::from_std(stream).expect("it is a socket")
}

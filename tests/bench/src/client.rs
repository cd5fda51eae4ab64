//! Single requests, for looking at what a server answers.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::server::Server;

/// How often a server that is not there yet is asked again.
const RETRY: Duration = Duration::from_millis(1);

/// A client of one server.
pub(crate) struct Client {
    agent: ureq::Agent,
    address: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A port that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A server that is started again on the same port knows nothing of an earlier one's connections.
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        Self { agent: settings.into(), address: format!("http://127.0.0.1:{port}") }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// A GET, or a POST of as many bytes as `upload` says.
    pub(crate) fn ask(&self, path: &str, upload: Option<usize>) -> Result<Answer> {
        let url = self.url(path);
        let mut response = match upload {
            None => self.agent.get(&url).call()?,
            Some(bytes) => self.agent.post(&url).send(&vec![b'x'; bytes])?,
        };
        Ok(Answer { status: response.status().as_u16(), body: response.body_mut().read_to_vec()? })
    }

    /// Asks until the answer has this status; how long that took since `since`.
    pub(crate) fn wait_for(
        &self,
        server: &mut Server,
        path: &str,
        status: u16,
        since: Instant,
        patience: Duration,
    ) -> Result<Duration> {
        loop {
            let answer = self.ask(path, None);
            if answer.as_ref().is_ok_and(|answer| answer.status == status) {
                return Ok(since.elapsed());
            }
            server.still_runs()?;
            if since.elapsed() > patience {
                match answer {
                    Ok(answer) => bail!("{path} answers {} after {patience:?}, not {status}", answer.status),
                    Err(error) => return Err(error).with_context(|| format!("{path} does not answer")),
                }
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Fails unless the answer is a 200 with this body.
    pub(crate) fn check(&self, path: &str, upload: Option<usize>, expected: &[u8]) -> Result<()> {
        let answer = self.ask(path, upload)?;
        ensure!(answer.status == 200, "{path} answers {}", answer.status);
        ensure!(
            answer.body == expected,
            "{path} answers with another body: {} bytes, not {}",
            answer.body.len(),
            expected.len()
        );
        Ok(())
    }
}

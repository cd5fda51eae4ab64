//! The well-behaved app beside the attackers, and its client: is it served, and how fast, all the time?

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire;

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(10);

/// Unanswered for so long, the neighbour counts as starved: far more than a busy machine explains.
const STARVED: Duration = Duration::from_secs(5);

pub(super) struct Neighbour {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    client: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Asked {
    took: Duration,
    /// None if it was answered as it should.
    wrong: Option<String>,
}

/// How the neighbour fared for a while.
#[derive(Default)]
pub(super) struct Fared {
    pub(super) median: Duration,
    pub(super) worst: Duration,
    pub(super) asked: usize,
    pub(super) wrong: Option<String>,
}

impl Neighbour {
    pub(super) fn visit(address: SocketAddr, app: &'static str) -> Self {
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let client = std::thread::spawn({
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(address, app);
                    asked.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Self { asked, stop, client: Some(client) }
    }

    /// How it fared since it was last asked for.
    pub(super) fn fared(&self) -> Fared {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        let mut took: Vec<_> = asked.iter().map(|asked| asked.took).collect();
        took.sort_unstable();
        let Some(worst) = took.last() else { return Fared::default() };
        let starved = (*worst > STARVED).then(|| format!("unanswered for {worst:.1?}"));
        Fared {
            median: took[took.len() / 2],
            worst: *worst,
            asked: took.len(),
            wrong: asked.iter().find_map(|asked| asked.wrong.clone()).or(starved),
        }
    }
}

/// One request, on a connection of its own: a new visitor.
fn ask(address: SocketAddr, app: &str) -> Asked {
    let begin = Instant::now();
    let answer = wire::open(address).and_then(|mut stream| {
        stream.write_all(&wire::get(&format!("/{app}")))?;
        Ok(wire::parse(&wire::read_until(&mut stream, begin + 2 * STARVED), false))
    });
    let wrong = match answer {
        Ok(reply) if reply.status == 200 && reply.text() == "ok" => None,
        Ok(reply) => Some(format!("the neighbour got {} {}", reply.status, reply.text().trim())),
        Err(error) => Some(format!("the neighbour got no answer: {error}")),
    };
    Asked { took: begin.elapsed(), wrong }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
    }
}

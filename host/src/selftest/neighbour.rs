//! The well-behaved app beside the attackers, and its visitors: is it served, and how fast, all the time?
//!
//! They come by a timetable, however slow the host is, and each waits from the moment at which it was to come: a host that stands still
//! is not asked less for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire;

/// How often somebody comes.
const EVERY: Duration = Duration::from_millis(20);

/// So many are served at once; who is to come meanwhile waits.
const VISITORS: usize = 4;

/// Unanswered for so long, the neighbour counts as starved: far more than a busy machine explains.
const STARVED: Duration = Duration::from_secs(5);

/// Whoever attacks has another address: what one client may take all of is another's.
const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

pub(super) struct Neighbour {
    book: Arc<Book>,
    visitors: Vec<JoinHandle<()>>,
}

struct Book {
    began: Instant,
    pages: Mutex<Pages>,
    changed: Condvar,
}

#[derive(Default)]
struct Pages {
    /// The number of who comes next.
    next: u32,
    /// Those that are not answered yet.
    under_way: BTreeSet<u32>,
    answered: BTreeMap<u32, Asked>,
    /// Who came before is nobody's business any more.
    counted_from: u32,
    is_over: bool,
}

#[derive(Clone)]
struct Asked {
    took: Duration,
    /// None if it was answered as it should.
    wrong: Option<String>,
}

impl Asked {
    fn trouble(&self) -> Option<String> {
        self.wrong.clone().or_else(|| (self.took > STARVED).then(|| format!("unanswered for {:.1?}", self.took)))
    }
}

/// How the neighbour fared for a while.
#[derive(Default)]
pub(super) struct Fared {
    pub(super) median: Duration,
    pub(super) worst: Duration,
    pub(super) wrong: Option<String>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When that visitor is to come.
    fn due(&self, number: u32) -> Instant {
        self.began + EVERY * number
    }

    /// The first that is not to have come by now.
    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_nanos() / EVERY.as_nanos()).map_or(u32::MAX, |number| number + 1)
    }

    /// Takes the next number, until it is over.
    fn next(&self) -> Option<u32> {
        let mut pages = self.pages();
        if pages.is_over {
            return None;
        }
        let number = pages.next;
        pages.next += 1;
        pages.under_way.insert(number);
        Some(number)
    }

    fn visit(&self, address: SocketAddr, app: &str) {
        while let Some(number) = self.next() {
            let due = self.due(number);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let wrong = ask(address, app);
            let mut pages = self.pages();
            pages.under_way.remove(&number);
            if number >= pages.counted_from {
                pages.answered.insert(number, Asked { took: due.elapsed(), wrong });
            }
            drop(pages);
            self.changed.notify_all();
        }
    }
}

impl Neighbour {
    pub(super) fn visited(address: SocketAddr, app: &'static str) -> Self {
        let book = Arc::new(Book { began: Instant::now(), pages: Mutex::default(), changed: Condvar::new() });
        let visitor = |_| {
            let book = Arc::clone(&book);
            std::thread::spawn(move || book.visit(address, app))
        };
        Self { visitors: (0..VISITORS).map(visitor).collect(), book }
    }

    /// How it fared since that was last asked: everybody who was to come until now, and one more, waited for. One who is not served is enough, though:
    /// then nobody else is waited for, and the timetable begins anew, so that the next attacker is not charged for it.
    pub(super) fn fared(&self) -> Fared {
        let book = &self.book;
        let end = book.now() + 1;
        let mut pages = book.pages();
        loop {
            let trouble = pages.answered.values().find_map(Asked::trouble);
            let is_pending = pages.next < end || pages.under_way.first().is_some_and(|number| *number < end);
            if trouble.is_some() || !is_pending {
                break;
            }
            pages = book.changed.wait(pages).unwrap_or_else(PoisonError::into_inner);
        }
        let later = pages.answered.split_off(&end);
        let asked: Vec<_> = std::mem::replace(&mut pages.answered, later).into_values().collect();
        let wrong = asked.iter().chain(pages.answered.values()).find_map(Asked::trouble);
        if wrong.is_some() {
            pages.answered.clear();
            pages.next = pages.next.max(book.now());
            pages.counted_from = pages.next;
        }
        drop(pages);
        let mut took: Vec<_> = asked.iter().map(|asked| asked.took).collect();
        took.sort_unstable();
        let Some(worst) = took.last() else { return Fared { wrong, ..Fared::default() } };
        Fared { median: took[took.len() / 2], worst: *worst, wrong }
    }
}

/// One request, on a connection of its own: a new visitor. What is wrong with the answer, if anything is.
fn ask(address: SocketAddr, app: &str) -> Option<String> {
    let deadline = Instant::now() + 2 * STARVED;
    let answer = wire::open_from(OWN, address).and_then(|mut stream| {
        stream.write_all(&wire::get(&format!("/{app}")))?;
        Ok(wire::parse(&wire::read_until(&mut stream, deadline), false))
    });
    match answer {
        Ok(reply) if reply.status == 200 && reply.text() == "ok" => None,
        Ok(reply) => Some(format!("the neighbour got {} {}", reply.status, reply.text().trim())),
        Err(error) => Some(format!("the neighbour got no answer: {error}")),
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.book.pages().is_over = true;
        for visitor in self.visitors.drain(..) {
            let _ = visitor.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    /// A server that answers as the neighbour does, as long as it is not held up.
    fn serve(is_held_up: Arc<AtomicBool>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has one");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("somebody connects");
                while is_held_up.load(SeqCst) {
                    std::thread::yield_now();
                }
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        address
    }

    #[test]
    fn who_is_not_served_yet_is_waited_for_from_when_it_was_to_come() {
        let is_held_up = Arc::new(AtomicBool::new(false));
        let neighbour = Neighbour::visited(serve(Arc::clone(&is_held_up)), "app");
        let until = |number: u32| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while neighbour.book.now() < number {
                assert!(Instant::now() < deadline, "time goes on");
                std::thread::yield_now();
            }
        };
        until(10);
        assert_eq!(neighbour.fared().wrong, None);
        is_held_up.store(true, SeqCst);
        let began = neighbour.book.now();
        until(began + 30);
        // The attack is over; whoever came during it is not answered yet.
        let release = Arc::clone(&is_held_up);
        let book = Arc::clone(&neighbour.book);
        std::thread::spawn(move || {
            while book.now() < began + 50 {
                std::thread::yield_now();
            }
            release.store(false, SeqCst);
        });
        let fared = neighbour.fared();
        assert!(fared.worst >= EVERY * 40, "{:?}", fared.worst);
        assert!(
            fared.median >= EVERY * 20,
            "who came while all visitors waited has waited as well: {:?}",
            fared.median
        );
    }
}

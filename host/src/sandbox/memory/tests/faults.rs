//! What the memories rest on where the kernel is not asked for pages (docs/decisions/0041): whoever writes to a page for the first time,
//! in whatever way, is counted in the faults of the process. Faults belong to all of a process, so this is tried in one of its own.

use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc;

use super::super::scan::{Faults, count_faults};
use super::*;

const PAGE: usize = 4096;

/// Says to the test's own process that it is that.
const ALONE: &str = "WASGI_TEST_ALONE";

/// Runs a test alone in a process.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let program = std::env::current_exe().expect("it is a program");
    let name = format!("{}::{name}", module_path!().split_once("::").expect("it is in a crate").1);
    let output = Command::new(program).args([&name, "--exact", "--nocapture"]).env(ALONE, "1").output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes to the first byte of a page, in its own way, and counts faults just before that and just after.
type Way = fn(*mut u8) -> (Faults, Faults);

fn counted(write: impl FnOnce()) -> (Faults, Faults) {
    let before = count_faults().expect("the kernel counts");
    write();
    (before, count_faults().expect("the kernel counts"))
}

/// An address as another thread may have it.
struct There(*mut u8);
// SAFETY: nobody else has the page meanwhile.
unsafe impl Send for There {}

impl There {
    fn store(self) -> (Faults, Faults) {
        // SAFETY: a page of the test's, which is accessible.
        counted(|| unsafe { self.0.write_volatile(0xa5) })
    }
}

fn by_another_thread(page: *mut u8) -> (Faults, Faults) {
    let page = There(page);
    let (before, after) = std::thread::spawn(|| page.store()).join().expect("it does not panic");
    let now = count_faults().expect("the kernel counts");
    assert!(now >= after, "a thread that has ended takes no faults with it");
    (before, after)
}

/// One that has not ended when the faults are counted.
fn by_a_thread_that_stays(page: *mut u8) -> (Faults, Faults) {
    let page = There(page);
    let (say, hear) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let before = count_faults().expect("the kernel counts");
        page.store();
        say.send(before).expect("somebody listens");
        std::thread::park();
    });
    let before = hear.recv().expect("it says when it has");
    let after = count_faults().expect("the kernel counts");
    thread.thread().unpark();
    (before, after)
}

fn by_reading_a_file(page: *mut u8) -> (Faults, Faults) {
    let mut file = tempfile::tempfile().expect("there is a disk");
    file.write_all(&[0xa5; PAGE]).expect("there is room");
    file.rewind().expect("it is a file");
    counted(|| {
        // SAFETY: as long as the page.
        let read = unsafe { libc::read(file.as_raw_fd(), page.cast(), 1) };
        assert_eq!(read, 1);
    })
}

fn by_reading_a_socket(page: *mut u8) -> (Faults, Faults) {
    let (mut one, other) = std::os::unix::net::UnixStream::pair().expect("there are sockets");
    one.write_all(&[0xa5]).expect("there is room");
    counted(|| {
        // SAFETY: as above.
        let read = unsafe { libc::recv(other.as_raw_fd(), page.cast(), 1, 0) };
        assert_eq!(read, 1);
    })
}

/// The kernel takes hold of the page by itself, as it does for a device that writes to memory.
fn by_the_kernel(page: *mut u8) -> (Faults, Faults) {
    let byte = 0xa5_u8;
    let from = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    let to = libc::iovec { iov_base: page.cast(), iov_len: 1 };
    counted(|| {
        // SAFETY: both are as long as they say, and accessible.
        let written = unsafe { libc::process_vm_writev(libc::getpid(), &raw const from, 1, &raw const to, 1, 0) };
        assert_eq!(written, 1);
    })
}

fn by_populating(page: *mut u8) -> (Faults, Faults) {
    counted(|| {
        // SAFETY: a page of the test's; it changes no content.
        let populated = unsafe { libc::madvise(page.cast(), PAGE, libc::MADV_POPULATE_WRITE) };
        assert_eq!(populated, 0);
    })
}

const WAYS: [(&str, Way); 7] = [
    ("a store", |page| There(page).store()),
    ("a thread that ends", by_another_thread),
    ("a thread that stays", by_a_thread_that_stays),
    ("read(2) of a file", by_reading_a_file),
    ("recv(2) of a socket", by_reading_a_socket),
    ("the kernel, of whoever's memory", by_the_kernel),
    ("madvise(2)", by_populating),
];

#[test]
fn whoever_writes_to_a_page_for_the_first_time_is_counted() {
    alone("whoever_writes_to_a_page_for_the_first_time_is_counted", || {
        let scanner = Scanner::new().large();
        if !scanner.is_available() {
            println!("this kernel is not asked for pages");
            return;
        }
        let (region, image) = begun(&scanner);
        let other = self::region(1);
        poke(&other, 0, 0xa5);
        let ready = other.at(0);
        // A page of the image, one of zeros, and such that were read before.
        for offset in [PAGE_BYTES + 2 * PAGE, 4 * PAGE_BYTES, PAGE_BYTES + 4 * PAGE, 4 * PAGE_BYTES + 2 * PAGE] {
            for (way, write) in WAYS {
                // SAFETY: nobody else has the region.
                unsafe { region.overlay(&image) }.expect("it can be mapped");
                if !offset.is_multiple_of(PAGE_BYTES) {
                    let _ = content(&region);
                }
                // Of a page that is the process's nobody is counted, or the other answer would prove nothing.
                let is_quiet = |_| {
                    let (before, after) = write(ready.cast());
                    before == after
                };
                assert!((0..100).any(is_quiet), "{way}: others have faults meanwhile");
                let (before, after) = write(region.at(offset).cast());
                assert!(before < after, "{way}: a page came to the process without being counted");
                put_back(&region, &scanner);
                assert!(image.is(&content(&region)), "{way}");
            }
        }
    });
}

/// The counts of a thread that ends become the process's: the sum never goes back, and loses nothing, while it does.
#[test]
fn threads_that_end_take_no_faults_with_them() {
    alone("threads_that_end_take_no_faults_with_them", || {
        let ending = || {
            for _ in 0..200 {
                std::thread::spawn(|| There(vec![0_u8; 8 * PAGE].leak().as_mut_ptr()).store()).join().expect("it ends");
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(ending)).collect();
            let mut last = count_faults().expect("the kernel counts");
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let now = count_faults().expect("the kernel counts");
                assert!(now >= last, "{now:?} after {last:?}");
                last = now;
            }
        });
    });
}

/// `MADV_COLLAPSE` (Linux 6.1): what the kernel's thread `khugepaged` does by itself, on demand.
const COLLAPSE: i32 = 25;
const HUGE: usize = 2 << 20;

/// A huge page has what nobody has written to as well, and who writes there later has no fault.
#[test]
fn no_pages_of_a_slot_become_a_huge_one() {
    let collapse = |start: *mut u8| {
        // SAFETY: it changes no content.
        unsafe { libc::madvise(start.wrapping_add(start.align_offset(HUGE)).cast(), HUGE, COLLAPSE) == 0 }
    };
    let mut plain = vec![0_u8; 2 * HUGE];
    plain.fill(1);
    if !collapse(plain.as_mut_ptr()) {
        println!("this kernel makes no huge page on demand");
    }
    let image = Arc::new(Image::new(&vec![7; 3 * PAGE_BYTES]).expect("there is memory"));
    for image in [None, Some(&image)] {
        let mut region = region(0);
        for _ in 0..2 {
            region.lay_out(PAGES * PAGE_BYTES, image).expect("it can be mapped");
            (0..region.size()).step_by(PAGE_BYTES).for_each(|offset| poke(&region, offset, 0xa5));
            assert!(!collapse(region.at(0).cast()));
            put_back(&region, &Scanner::new());
        }
    }
}

//! Memories without an engine: what is written goes back, whatever way the kernel says what that was.

#[cfg(not(miri))]
mod faults;

use super::region::{KEPT_BYTES, Region};
use super::*;
use crate::sandbox::step::{self, Step};

const PAGES: usize = 64;
const GUARD: usize = 2 * PAGE_BYTES;

fn slots(count: usize) -> Vec<Region> {
    Region::reserve(count, PAGES * PAGE_BYTES, GUARD).expect("there is address space")
}

fn region(minimum: usize) -> Region {
    let mut region = slots(1).pop().expect("it is one");
    region.lay_out(minimum * PAGE_BYTES, None).expect("it can be mapped");
    region
}

fn poke(region: &Region, offset: usize, byte: u8) {
    assert!(offset < region.size());
    // SAFETY: accessible, and nobody else has the region.
    unsafe { region.at(offset).cast::<u8>().write_volatile(byte) };
}

fn content(region: &Region) -> Vec<u8> {
    // SAFETY: nobody else has the region.
    unsafe { region.bytes(0, region.size()) }.to_vec()
}

/// All ways of finding out what was written.
fn scanners() -> Vec<Scanner> {
    let mut scanners = vec![Scanner::without()];
    if Scanner::new().is_available() {
        scanners.extend([Scanner::new(), Scanner::new().large()]);
    }
    scanners
}

/// A region of five pages, with something in the second and the third, which are its image.
fn begun(scanner: &Scanner) -> (Region, Arc<Image>) {
    let region = region(5);
    for (offset, byte) in [(0, 1), (5000, 2), (PAGE_BYTES, 3), (2 * PAGE_BYTES - 1, 4)] {
        poke(&region, PAGE_BYTES + offset, byte);
    }
    // SAFETY: nobody else has the region.
    let image = unsafe { begun_with(&region, scanner) }.expect("there is memory");
    assert_eq!((image.start(), image.end()), (PAGE_BYTES, 3 * PAGE_BYTES));
    // SAFETY: as above.
    unsafe { region.overlay(&image) }.expect("it can be mapped");
    (region, image)
}

fn put_back(region: &Region, scanner: &Scanner) {
    // SAFETY: nobody else has the region.
    unsafe { region.put_back(scanner) }.expect("the kernel obeys");
}

#[test]
fn everything_that_was_written_goes_back() {
    for scanner in scanners() {
        let (region, image) = begun(&scanner);
        let before = content(&region);
        assert!(before.len() == 5 * PAGE_BYTES && image.is(&before));
        // Many places apart, so that the kernel has to be asked more than once; then all, which is too much for putting back
        // in place where the memory is large.
        for step in [if cfg!(miri) { 1001 } else { 3 }, 4096, 2 * 4096, 3 * 4096, PAGE_BYTES] {
            for offset in (0..region.size()).step_by(step) {
                poke(&region, offset, 0xa5);
            }
            put_back(&region, &scanner);
            assert!(content(&region) == before, "step {step}");
        }
    }
}

/// Where there is swap, the pages are in it when they are put back; elsewhere they stay. To be run with swap by hand: it
/// belongs to the whole machine.
#[test]
#[cfg_attr(miri, ignore = "there is no swap")]
fn what_was_swapped_out_goes_back() {
    let has_swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    for scanner in scanners() {
        let (region, _) = begun(&scanner);
        let before = content(&region);
        for left_out in [None, Some(Step::Absent), None] {
            for offset in (0..region.size()).step_by(1000) {
                poke(&region, offset, 0xa5);
            }
            // SAFETY: it changes no content.
            unsafe { rustix::mm::madvise(region.at(0), region.size(), rustix::mm::Advice::LinuxPageOut) }
                .expect("the kernel obeys");
            let swapped_bytes = swapped_bytes(&region);
            println!("swap: {has_swap}; of {} bytes are out: {swapped_bytes}", region.size());
            step::without(left_out, || put_back(&region, &scanner));
            // Who asks for present pages only overlooks those that are out.
            let overlooks = left_out.is_some() && swapped_bytes > 0 && scanner.is_available();
            assert_eq!(content(&region) == before, !overlooks);
        }
    }
}

/// How much of the region is in swap.
fn swapped_bytes(region: &Region) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("there is /proc");
    let start = format!("{:x}-", region.at(0).addr());
    let mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let kilobytes = mapping.filter_map(|line| line.strip_prefix("Swap:")).next().expect("each mapping has it");
    kilobytes.trim().trim_end_matches(" kB").parse::<usize>().expect("it is a number") << 10
}

#[test]
fn more_than_is_kept_in_place_goes_back_too() {
    for scanner in scanners() {
        let mut region = Region::reserve(1, 2 * KEPT_BYTES, GUARD).expect("there is address space").remove(0);
        region.lay_out(2 * KEPT_BYTES, None).expect("it can be mapped");
        for offset in (0..region.size()).step_by(4096) {
            poke(&region, offset, 0xa5);
        }
        put_back(&region, &scanner);
        assert!(content(&region).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_memory_that_begins_with_nothing_can_be_put_back() {
    for scanner in scanners() {
        let region = region(0);
        // SAFETY: nobody else has the region.
        unsafe {
            let image = begun_with(&region, &scanner).expect("nothing is needed");
            assert!(begins_with(&region, &image, &scanner).expect("the kernel answers"));
            region.overlay(&image).expect("there is nothing to map");
        }
        region.grow_to(PAGE_BYTES).expect("it is within the reservation");
        poke(&region, 5, 0xa5);
        put_back(&region, &scanner);
        assert_eq!(region.size(), 0);
    }
}

#[test]
fn what_it_has_grown_by_is_taken_back_and_zero_when_it_grows_again() {
    for scanner in scanners() {
        let (region, _) = begun(&scanner);
        for _ in 0..3 {
            region.grow_to(9 * PAGE_BYTES).expect("it is within the reservation");
            assert!(content(&region)[5 * PAGE_BYTES..].iter().all(|byte| *byte == 0));
            for offset in (0..region.size()).step_by(1000) {
                poke(&region, offset, 0xa5);
            }
            put_back(&region, &scanner);
            assert_eq!(region.size(), 5 * PAGE_BYTES);
        }
        assert!(region.grow_to((PAGES + 1) * PAGE_BYTES).is_err(), "beyond the reservation");
        assert!(region.grow_to(PAGE_BYTES).is_err(), "memories don't shrink by growing");
    }
}

/// Whether the page at the region's offset can be read, as the kernel has it.
fn is_accessible(region: &Region, offset: isize) -> bool {
    let address = region.at(0).addr().wrapping_add_signed(offset);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is /proc");
    let line = maps.lines().find(|line| {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let parse = |text| usize::from_str_radix(text, 16).expect("an address");
        (parse(start)..parse(end)).contains(&address)
    });
    line.is_some_and(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with('r')))
}

#[test]
#[cfg_attr(miri, ignore = "access rights are the kernel's")]
fn what_lies_around_a_memory_is_out_of_reach() {
    let scanner = Scanner::new();
    let (region, _) = begun(&scanner);
    let at = |pages: isize| pages * PAGE_BYTES.cast_signed();
    assert!(is_accessible(&region, 0) && is_accessible(&region, at(5) - 1));
    let outside = [at(-2), -1, at(5), at(6), at(PAGES as isize) - 1, at(PAGES as isize), at(PAGES as isize + 2) - 1];
    assert!(outside.iter().all(|offset| !is_accessible(&region, *offset)));
    region.grow_to(7 * PAGE_BYTES).expect("it is within the reservation");
    assert!(is_accessible(&region, at(7) - 1) && !is_accessible(&region, at(7)));
    put_back(&region, &scanner);
    assert!(outside.iter().all(|offset| !is_accessible(&region, *offset)), "growth is protected again");
}

#[test]
#[cfg_attr(miri, ignore = "seals are the kernel's")]
fn an_image_cannot_be_changed() {
    use std::io::{Seek, Write};
    let image = Image::new(&[7; PAGE_BYTES]).expect("there is memory");
    let mut file = image.file().expect("it is not empty").0;
    file.rewind().expect("it is a file");
    file.write_all(b"changed").expect_err("it is sealed");
    file.set_len(0).expect_err("it is sealed");
    assert!(image.bytes().iter().all(|byte| *byte == 7));
}

#[test]
fn sizes_that_are_no_pages_are_refused() {
    assert!(Region::reserve(1, PAGE_BYTES + 1, 0).is_err());
    assert!(Region::reserve(1, PAGE_BYTES, 1).is_err());
    assert!(Region::reserve(usize::MAX, PAGE_BYTES, 0).is_err());
    let mut region = region(1);
    assert!(region.lay_out(1, None).is_err());
    assert!(region.lay_out((PAGES + 1) * PAGE_BYTES, None).is_err());
}

#[test]
fn a_slot_goes_back_and_its_neighbours_stay() {
    for scanner in scanners() {
        let image = Arc::new(Image::new(&[7; PAGE_BYTES]).expect("there is memory"));
        // Of different sizes, some without an image, some of no size.
        let mut slots = slots(10);
        for (place, slot) in slots.iter_mut().enumerate() {
            let image = (place % 3 > 0).then_some(&image);
            let pages = if image.is_some() { 1 + place % 5 } else { place % 5 };
            slot.lay_out(pages * PAGE_BYTES, image).expect("it can be mapped");
        }
        let before: Vec<_> = slots.iter().map(content).collect();
        for _ in 0..3 {
            for slot in &slots {
                slot.grow_to((PAGES / 2) * PAGE_BYTES).expect("it is within the reservation");
                for offset in (0..slot.size()).step_by(3 * 4096) {
                    poke(slot, offset, 0xa5);
                }
            }
            for (slot, before) in slots.iter().zip(&before).step_by(2) {
                put_back(slot, &scanner);
                assert!(content(slot) == *before);
            }
            for slot in slots.iter().skip(1).step_by(2) {
                assert_eq!((slot.size(), content(slot)[0]), ((PAGES / 2) * PAGE_BYTES, 0xa5), "it is in use");
            }
        }
    }
}

#[test]
fn a_slot_that_was_laid_out_anew_has_nothing_of_what_it_was() {
    for scanner in scanners() {
        let images = [1, 9, 3].map(|pages| {
            let content = vec![pages as u8; pages * PAGE_BYTES];
            Arc::new(Image::new(&content).expect("there is memory"))
        });
        let mut region = region(20);
        for (minimum, image) in
            [(5, Some(&images[0])), (12, Some(&images[1])), (2, None), (12, Some(&images[2])), (12, None)]
        {
            for offset in (0..region.size()).step_by(1000) {
                poke(&region, offset, 0xa5);
            }
            region.lay_out(minimum * PAGE_BYTES, image).expect("it can be mapped");
            let holds = |region: &Region| match image {
                Some(image) => image.is(&content(region)),
                None => content(region).iter().all(|byte| *byte == 0),
            };
            assert!(region.size() == minimum * PAGE_BYTES && holds(&region));
            region.grow_to(15 * PAGE_BYTES).expect("it is within the reservation");
            assert!(content(&region)[minimum * PAGE_BYTES..].iter().all(|byte| *byte == 0));
            put_back(&region, &scanner);
            assert!(holds(&region));
        }
        region.wipe().expect("the kernel obeys");
        assert!(cfg!(miri) || !is_accessible(&region, 0), "nobody can read what is in no memory");
    }
}

fn shelves(pool: &Arc<Pool>, image: Option<&Arc<Image>>) -> Arc<Shelves> {
    Shelves::new(pool, &vec![image.map(Arc::clone)].into())
}

fn lease(shelves: &Arc<Shelves>, pages: usize) -> io::Result<Lease> {
    let region = shelves.take(0, pages * PAGE_BYTES, PAGES * PAGE_BYTES, GUARD)?;
    Ok(Lease::new(shelves, 0, region))
}

#[test]
fn no_slot_is_anybodys_again_before_it_holds_what_the_memory_begins_with() {
    for scanner in scanners() {
        let pool = Pool::new(8, scanner);
        let image = Arc::new(Image::new(&[7; 3 * PAGE_BYTES]).expect("there is memory"));
        let releases = [shelves(&pool, Some(&image)), shelves(&pool, None)];
        for (pages, rounds) in if cfg!(miri) { [(4, 4), (PAGES / 8, 1)] } else { [(4, 80), (PAGES, 4)] } {
            for round in 0..rounds {
                let taken: Vec<_> = (0..5).map(|place| lease(&releases[(round + place) % 2], pages)).collect();
                for (place, lease) in taken.iter().enumerate() {
                    let region = lease.as_ref().expect("there are slots").region();
                    let content = content(region);
                    let is_image = (round + place) % 2 == 0;
                    assert!(if is_image { image.is(&content) } else { content.iter().all(|byte| *byte == 0) });
                    region.grow_to(PAGES * PAGE_BYTES).expect("it is within the reservation");
                    for offset in (0..region.size()).step_by(40_000) {
                        poke(region, offset, 0xa5);
                    }
                }
                if round % 20 == 3 {
                    releases.iter().for_each(|shelves| shelves.sweep());
                }
            }
        }
    }
}

#[test]
fn a_slot_that_somebody_has_mapped_anew_is_none_of_the_shelfs_any_more() {
    for scanner in scanners() {
        let pool = Pool::new(1, scanner);
        let [image, other] = [7, 9].map(|byte| Arc::new(Image::new(&[byte; PAGE_BYTES]).expect("there is memory")));
        for image in [None, Some(&image)] {
            let release = shelves(&pool, image);
            for pages in [2, PAGES] {
                let rewound = lease(&release, pages).expect("there are slots");
                // SAFETY: nobody else has it.
                unsafe { rewound.region().overlay(&other) }.expect("it can be mapped");
                drop(rewound);
                for _ in 0..10 {
                    let lease = lease(&release, pages).expect("there are slots");
                    let content = content(lease.region());
                    let holds = image.map_or(content.iter().all(|byte| *byte == 0), |image| image.is(&content));
                    assert!(holds, "{pages} pages");
                }
            }
        }
    }
}

#[test]
fn when_all_slots_are_in_use_one_that_waits_for_another_release_is_taken_and_then_there_is_none() {
    let pool = Pool::new(8, Scanner::new());
    let image = Arc::new(Image::new(&[7; PAGE_BYTES]).expect("there is memory"));
    let (one, other) = (shelves(&pool, Some(&image)), shelves(&pool, None));
    let mut taken = Vec::new();
    let full = loop {
        match lease(&one, 2) {
            Ok(lease) => taken.push(lease),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
    assert!(lease(&other, 3).is_err());
    drop(taken.pop());
    let lease = lease(&other, 3).expect("one has become free");
    assert!(content(lease.region()).iter().all(|byte| *byte == 0));
    drop((taken, one));
}

/// `MADV_GUARD_INSTALL` (Linux 6.13): the kernel keeps a mark in the place of a page that is not present, as for one in swap.
const GUARD_INSTALL: i32 = 102;

/// Stands for a page in swap, which a machine that tests has no room for: it is not present, and its entry in the page table is
/// of the same kind.
#[test]
#[cfg_attr(miri, ignore = "there are marks in page tables")]
fn a_page_that_is_not_present_is_found() {
    let scanner = Scanner::new();
    let region = region(5);
    // SAFETY: a page of the region, which nobody else has.
    let is_marked = unsafe { libc::madvise(region.at(2 * PAGE_BYTES), 4096, GUARD_INSTALL) } == 0;
    if !is_marked || !scanner.is_available() {
        println!("this kernel is too old to simulate it");
        return;
    }
    let found = || {
        let mut found = Vec::new();
        let scanned = scanner.scan(region.at(0), region.size(), |dirty| {
            found.push((dirty.start, dirty.end, dirty.is_zero));
            true
        });
        assert!(scanned.expect("the kernel answers"));
        found
    };
    assert_eq!(found(), [(2 * PAGE_BYTES, 2 * PAGE_BYTES + 4096, false)]);
    assert_eq!(step::without(Some(Step::Absent), found), [], "who asks for present pages only overlooks it");
}

#[test]
fn what_is_known_to_be_written_is_believed_only_while_no_page_comes_to_the_process() {
    let scanner = Scanner::new().large();
    if !scanner.is_available() {
        return;
    }
    let (region, _) = begun(&scanner);
    let before = content(&region);
    // From page to page, so that each round writes to one more for the first time, and again to those before.
    for pages in 1..region.size() / 4096 {
        for _ in 0..3 {
            (0..pages).for_each(|page| poke(&region, page * 4096 + 5, 0xa5));
            put_back(&region, &scanner);
            assert!(content(&region) == before, "{pages} pages");
        }
    }
    // Behind the scanner's back: what it believes is wrong then, and shows.
    poke(&region, region.size() - 1, 0xa5);
    step::without(Some(Step::News), || put_back(&region, &scanner));
    assert!(content(&region) != before);
}

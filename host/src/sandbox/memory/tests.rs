//! Memories without an engine: what is written goes back, whatever way the kernel says what that was.

use super::*;

const PAGES: usize = 64;
const GUARD: usize = 2 * PAGE_BYTES;

fn region(minimum: usize) -> Region {
    Region::new(minimum * PAGE_BYTES, PAGES * PAGE_BYTES, GUARD).expect("there is address space")
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

/// Both ways of finding out what was written.
fn scanners() -> Vec<Scanner> {
    let scanner = Scanner::new();
    let mut scanners = vec![Scanner::without()];
    if scanner.is_available() {
        scanners.push(scanner);
    }
    scanners
}

/// A region of four pages, with something in the first two, and its image.
fn begun(scanner: &Scanner) -> (Region, Image) {
    let region = region(4);
    for (offset, byte) in [(0, 1), (5000, 2), (PAGE_BYTES, 3), (2 * PAGE_BYTES - 1, 4)] {
        poke(&region, offset, byte);
    }
    let content = content(&region);
    let filled = filled(&content, &region, scanner).expect("the kernel answers");
    assert_eq!(filled, 2 * PAGE_BYTES);
    let image = Image::new(&content[..filled]).expect("there is memory");
    // SAFETY: nobody else has the region.
    unsafe { region.overlay(&image) }.expect("it can be mapped");
    (region, image)
}

fn put_back(region: &Region, image: &Image, scanner: &Scanner) {
    // SAFETY: nobody else has the region.
    unsafe {
        region.shrink().expect("the kernel obeys");
        if !region.put_back(image, scanner).expect("the kernel answers") {
            region.release().expect("the kernel obeys");
        }
    }
}

#[test]
fn everything_that_was_written_goes_back() {
    for scanner in scanners() {
        let (region, image) = begun(&scanner);
        let before = content(&region);
        assert_eq!((before.len(), &before[..image.len]), (4 * PAGE_BYTES, image.bytes()));
        // Many places apart, so that the kernel has to be asked more than once; then all, which is too much for putting back
        // in place where the memory is large.
        for step in [3, 4096, 2 * 4096, 3 * 4096, PAGE_BYTES] {
            for offset in (0..region.size()).step_by(step) {
                poke(&region, offset, 0xa5);
            }
            put_back(&region, &image, &scanner);
            assert!(content(&region) == before, "step {step}");
        }
    }
}

/// Where there is swap, the pages are in it when they are put back; elsewhere they stay. To be run with swap by hand: it
/// belongs to the whole machine.
#[test]
fn what_was_swapped_out_goes_back() {
    let has_swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    for scanner in scanners() {
        let (region, image) = begun(&scanner);
        let before = content(&region);
        for offset in (0..region.size()).step_by(1000) {
            poke(&region, offset, 0xa5);
        }
        // SAFETY: it changes no content.
        unsafe { rustix::mm::madvise(region.at(0), region.size(), Advice::LinuxPageOut) }.expect("the kernel obeys");
        println!("swap: {has_swap}; of {} bytes are out: {}", region.size(), swapped_bytes(&region));
        put_back(&region, &image, &scanner);
        assert!(content(&region) == before);
    }
}

/// How much of the region is in swap.
fn swapped_bytes(region: &Region) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("there is /proc");
    let start = format!("{:x}-", region.base.as_ptr().addr());
    let mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let kilobytes = mapping.filter_map(|line| line.strip_prefix("Swap:")).next().expect("each mapping has it");
    kilobytes.trim().trim_end_matches(" kB").parse::<usize>().expect("it is a number") << 10
}

#[test]
fn more_than_is_kept_in_place_goes_back_too() {
    for scanner in scanners() {
        let region = region(PAGES);
        let image = Image::new(&[]).expect("nothing is needed");
        for offset in (0..region.size()).step_by(4096) {
            poke(&region, offset, 0xa5);
        }
        assert!(region.size() > KEPT_BYTES);
        put_back(&region, &image, &scanner);
        assert!(content(&region).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_it_has_grown_by_is_taken_back_and_zero_when_it_grows_again() {
    for scanner in scanners() {
        let (region, image) = begun(&scanner);
        for _ in 0..3 {
            region.grow_to(9 * PAGE_BYTES).expect("it is within the reservation");
            assert!(content(&region)[4 * PAGE_BYTES..].iter().all(|byte| *byte == 0));
            for offset in (0..region.size()).step_by(1000) {
                poke(&region, offset, 0xa5);
            }
            put_back(&region, &image, &scanner);
            assert_eq!(region.size(), 4 * PAGE_BYTES);
        }
        assert!(region.grow_to((PAGES + 1) * PAGE_BYTES).is_err(), "beyond the reservation");
        assert!(region.grow_to(PAGE_BYTES).is_err(), "memories don't shrink by growing");
    }
}

/// Whether the page at the region's offset can be read, as the kernel has it.
fn is_accessible(region: &Region, offset: isize) -> bool {
    let address = region.base.as_ptr().wrapping_offset(offset).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is /proc");
    let line = maps.lines().find(|line| {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let parse = |text| usize::from_str_radix(text, 16).expect("an address");
        (parse(start)..parse(end)).contains(&address)
    });
    line.is_some_and(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with('r')))
}

#[test]
fn what_lies_around_a_memory_is_out_of_reach() {
    let scanner = Scanner::new();
    let (region, image) = begun(&scanner);
    let at = |pages: isize| pages * PAGE_BYTES.cast_signed();
    assert!(is_accessible(&region, 0) && is_accessible(&region, at(4) - 1));
    let outside = [at(-2), -1, at(4), at(5), at(PAGES as isize) - 1, at(PAGES as isize), at(PAGES as isize + 2) - 1];
    assert!(outside.iter().all(|offset| !is_accessible(&region, *offset)));
    region.grow_to(6 * PAGE_BYTES).expect("it is within the reservation");
    assert!(is_accessible(&region, at(6) - 1) && !is_accessible(&region, at(6)));
    put_back(&region, &image, &scanner);
    assert!(outside.iter().all(|offset| !is_accessible(&region, *offset)), "growth is protected again");
}

#[test]
fn an_image_cannot_be_changed() {
    use std::io::{Seek, Write};
    let image = Image::new(&[7; PAGE_BYTES]).expect("there is memory");
    let mut file = image.file.as_ref().expect("it is not empty");
    file.rewind().expect("it is a file");
    file.write_all(b"changed").expect_err("it is sealed");
    file.set_len(0).expect_err("it is sealed");
    assert!(image.bytes().iter().all(|byte| *byte == 7));
}

#[test]
fn sizes_that_are_no_pages_are_refused() {
    assert!(Region::new(1, PAGE_BYTES, 0).is_err());
    assert!(Region::new(0, PAGE_BYTES, 1).is_err());
    assert!(Region::new(0, usize::MAX & !(PAGE_BYTES - 1), PAGE_BYTES).is_err());
}

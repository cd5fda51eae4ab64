//! The end of a file of compiled code: what the app's memories begin with. Each instance maps it from there, and the kernel
//! shares it between all of them as it does the code.
//!
//! Behind the code, to the next page, lie the images; behind these for each of them four numbers (which memory it is of,
//! counted as they are made, and where it begins there, where in the file, and its length), how many there are, and the
//! [`MARK`]. Every file has this end: no code is taken for one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::passes::Content;
use crate::sandbox::{Image, MemoryImages, PAGE_BYTES};

const MARK: [u8; 8] = *b"wasgi-im";
const NUMBER_BYTES: u64 = 8;
const NUMBERS: u64 = 4;

/// An app has no more memories.
const IMAGES_MAX: u64 = 64;

/// Puts the end to compiled code.
pub(super) fn append(code: &mut Vec<u8>, contents: &[Option<Content>]) {
    let mut numbers = Vec::new();
    for (memory, content) in contents.iter().enumerate() {
        let Some(Content { start, bytes }) = content else { continue };
        code.resize(code.len().next_multiple_of(PAGE_BYTES), 0);
        numbers.extend([memory, *start, code.len(), bytes.len()].map(|number| number as u64));
        code.extend_from_slice(bytes);
    }
    numbers.push(numbers.len() as u64 / NUMBERS);
    code.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    code.extend_from_slice(&MARK);
}

/// Maps what a file of compiled code ends with. It has to be one that nobody changes.
///
/// # Errors
/// If it has no such end.
pub(super) fn read(file: &File) -> anyhow::Result<MemoryImages> {
    let len = file.metadata()?.len();
    let number = |from_end: u64| -> anyhow::Result<u64> {
        let mut bytes = [0; NUMBER_BYTES as usize];
        file.read_exact_at(&mut bytes, len.checked_sub(from_end).context("it is too short")?)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let ends = "its end is not one of compiled code";
    ensure!(number(NUMBER_BYTES)?.to_le_bytes() == MARK, ends);
    let count = number(2 * NUMBER_BYTES)?;
    ensure!(count <= IMAGES_MAX, ends);
    let file = Arc::new(file.try_clone()?);
    let mut images = Vec::new();
    for image in (1..=count).rev() {
        let entry = (2 + image * NUMBERS) * NUMBER_BYTES;
        let at = |place: u64| number(entry - place * NUMBER_BYTES);
        let memory = usize::try_from(at(0)?)?;
        ensure!(memory < IMAGES_MAX as usize, ends);
        let mapped = Image::map(&file, at(2)?, usize::try_from(at(1)?)?, usize::try_from(at(3)?)?)?;
        images.resize(images.len().max(memory + 1), None);
        images[memory] = Some(Arc::new(mapped));
    }
    Ok(images.into())
}

/// What these contents would be, read from a file. For benchmarks and tests.
///
/// # Errors
/// If there is no room for a temporary file.
pub fn of_contents(contents: &[Option<Content>]) -> anyhow::Result<MemoryImages> {
    let mut end = Vec::new();
    append(&mut end, contents);
    let file = tempfile::tempfile()?;
    file.write_all_at(&end, 0)?;
    read(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(start: usize, bytes: &[u8]) -> Option<Content> {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        Some(Content { start, bytes })
    }

    fn file(code: &[u8]) -> File {
        let file = tempfile::tempfile().expect("there is a temporary directory");
        file.write_all_at(code, 0).expect("there is room");
        file
    }

    #[test]
    fn what_was_appended_is_read_again_and_the_code_stays() {
        for contents in
            [vec![], vec![None], vec![None, content(PAGE_BYTES, b"one"), None, content(0, &[7; PAGE_BYTES + 1])]]
        {
            let mut code = b"code".to_vec();
            append(&mut code, &contents);
            assert!(code.starts_with(b"code"));
            let images = read(&file(&code)).expect("it has an end");
            for (place, content) in contents.iter().enumerate() {
                let read = images.get(place);
                let read = read.map(|image| Content { start: image.start(), bytes: image.bytes().to_vec() });
                assert_eq!(read, *content);
            }
        }
    }

    #[test]
    fn other_files_are_refused() {
        let mut code = Vec::new();
        append(&mut code, &[content(0, b"x")]);
        for len in 0..code.len() {
            if len % 1000 == 0 || len > code.len() - 60 {
                assert!(read(&file(&code[..len])).is_err(), "cut at {len}");
            }
        }
        let far = code.len() - 3 * 8;
        code[far] = 0xff;
        assert!(read(&file(&code)).is_err(), "beyond the end");
    }
}

//! What memories hold when their instances are there: what they are put back to.

use std::io;
use std::sync::Arc;

use super::image::Image;
use super::region::Region;
use super::scan::{Dirty, Scanner};

/// What a memory holds, as an image.
///
/// # Safety
/// Nobody else may use the memory's contents meanwhile (point 3).
pub(super) unsafe fn begun_with(region: &Region, scanner: &Scanner) -> io::Result<Arc<Image>> {
    if let Some(image) = region.mapped()
        && is_untouched(region, scanner)?
    {
        return Ok(image);
    }
    let end = if region.mapped().is_some() { region.size() } else { written_end(region, scanner)? };
    // SAFETY: as the caller promises.
    Ok(Arc::new(Image::new(unsafe { region.bytes(0, end) })?))
}

/// Whether a memory holds what the image says.
///
/// # Safety
/// As [`begun_with`].
pub(super) unsafe fn begins_with(region: &Region, image: &Arc<Image>, scanner: &Scanner) -> io::Result<bool> {
    if region.size() != region.minimum() {
        return Ok(false);
    }
    if region.has(Some(image)) && is_untouched(region, scanner)? {
        return Ok(true);
    }
    let end = if region.mapped().is_some() { region.size() } else { written_end(region, scanner)?.max(image.end()) };
    // SAFETY: as the caller promises.
    Ok(image.end() <= region.size() && image.is(unsafe { region.bytes(0, end) }))
}

/// Where in a memory without an image the last page ends that was written, as far as the kernel knows.
fn written_end(region: &Region, scanner: &Scanner) -> io::Result<usize> {
    let mut last = 0;
    let is_complete = scanner.scan(region.at(0), region.size(), |Dirty { end, is_zero, .. }| {
        last = if is_zero { last } else { end };
        true
    })?;
    Ok(if is_complete { last } else { region.size() })
}

/// Whether the kernel says that nothing was written to a memory.
fn is_untouched(region: &Region, scanner: &Scanner) -> io::Result<bool> {
    scanner.scan(region.at(0), region.size(), |Dirty { .. }| false)
}

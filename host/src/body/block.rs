//! A block of a response on its way to a client. What the host holds of it counts as memory of its tenant's until the last byte is
//! written or dropped: a client that takes nothing so takes from the budget of those it asks, never from the host.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::account::{Account, Memory};
use crate::admission::Permit;
use crate::error::{Busy, Error};
use crate::sandbox::CallState;

/// Bytes, and what they keep in use.
pub(crate) struct Block {
    bytes: Bytes,
    /// None for what the host itself has to say.
    room: Option<Memory>,
    /// Of the call, where the block is to count as that.
    permit: Option<Arc<Permit>>,
}

/// What a block costs besides its bytes, so that many small ones are not free: this, what owns it on its way, what each
/// allocation has at least.
const COST_BYTES: u64 = 192;

impl Block {
    /// One of a call's response.
    ///
    /// # Errors
    /// [`Busy::TenantsMemory`], if it has said more than little already and its tenant may have no more.
    pub(crate) fn new(bytes: Bytes, call: &CallState) -> Result<Self, Error> {
        let room = call.hold_memory(bytes.len() as u64 + COST_BYTES).ok_or(Error::Busy(Busy::TenantsMemory))?;
        Ok(Self::within(room, bytes))
    }

    /// A buffer as one. All that was allocated for it counts, and is nobody else's.
    ///
    /// # Errors
    /// As for [`Block::new`].
    pub(crate) fn buffered(bytes: BytesMut, call: &CallState) -> Result<Self, Error> {
        let room = call.hold_memory(bytes.capacity() as u64 + COST_BYTES).ok_or(Error::Busy(Busy::TenantsMemory))?;
        Ok(Self::within(room, bytes.freeze()))
    }

    /// Several that are there at once, without the empty ones. None is kept if there is no room for all.
    ///
    /// # Errors
    /// As for [`Block::new`].
    pub(crate) fn all(blocks: Vec<Vec<u8>>, call: &CallState) -> Result<Vec<Self>, Error> {
        let filled = |blocks: Vec<Vec<u8>>| blocks.into_iter().filter(|block| !block.is_empty());
        let (count, bytes) = blocks
            .iter()
            .filter(|block| !block.is_empty())
            .fold((0, 0), |(count, bytes), block| (count + 1, bytes + block.len() as u64 + COST_BYTES));
        if count == 0 {
            return Ok(Vec::new());
        }
        let room = call.hold_memory(bytes).ok_or(Error::Busy(Busy::TenantsMemory))?;
        if count == 1 {
            return Ok(filled(blocks)
                .map(Bytes::from)
                .zip([room])
                .map(|(block, room)| Self::within(room, block))
                .collect());
        }
        // Each gives its own part back: the last one may be taken long after the first.
        let mut room = room;
        let parted = |block: Vec<u8>| Self::within(room.split(block.len() as u64 + COST_BYTES), block.into());
        Ok(filled(blocks).map(parted).collect())
    }

    /// Room for a block of so many bytes that is yet to come, of something large.
    ///
    /// # Errors
    /// [`Busy::TenantsMemory`], if the tenant may have no more.
    pub(crate) fn room(bytes: u64, account: &Arc<Account>) -> Result<Memory, Error> {
        account.hold_memory(bytes + COST_BYTES).ok_or(Error::Busy(Busy::TenantsMemory))
    }

    /// Room for one that is all of something small, whatever there is.
    pub(crate) fn small_room(bytes: u64, account: &Arc<Account>) -> Memory {
        account.owe_memory(bytes + COST_BYTES)
    }

    /// One for which room was taken.
    pub(crate) fn within(room: Memory, bytes: Bytes) -> Self {
        Self { bytes, room: Some(room), permit: None }
    }

    /// What the host itself has to say.
    pub(crate) fn hosts(bytes: Bytes) -> Self {
        Self { bytes, room: None, permit: None }
    }

    /// One of several, which are gone then.
    pub(crate) fn concat(mut blocks: Vec<Self>) -> Option<Self> {
        if blocks.len() <= 1 {
            return blocks.pop();
        }
        let mut bytes = BytesMut::with_capacity(blocks.iter().map(Self::len).sum());
        let mut room: Option<Memory> = None;
        for block in blocks {
            bytes.extend_from_slice(&block.bytes);
            match (&mut room, block.room) {
                (Some(room), Some(more)) => room.join(more),
                (room, more) => *room = room.take().or(more),
            }
        }
        Some(Self { bytes: bytes.freeze(), room, permit: None })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Leaves the first bytes of it. The others stay counted: they are not free before all are.
    pub(super) fn truncate(&mut self, bytes: u64) {
        self.bytes.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// It counts as a call, too, until it is gone.
    pub(crate) fn hold(&mut self, permit: &Arc<Permit>) {
        self.permit = Some(Arc::clone(permit));
    }

    /// As bytes that keep in use what the block does, until the last handle of them is dropped.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self { bytes, room: None, permit: None } => bytes,
            kept => Bytes::from_owner(kept),
        }
    }

    /// As bytes of which the last `piece_bytes`, or fewer, may have to wait for longer than the others; with the room for a copy of
    /// these.
    pub(crate) fn into_pieces(mut self, piece_bytes: usize) -> (Bytes, Option<Memory>) {
        let last_bytes = self.bytes.len().saturating_sub(1) % piece_bytes + 1;
        let last = self.room.as_mut().map(|room| room.split(last_bytes as u64));
        (self.into_bytes(), last)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::telemetry::RequestId;

    fn call(account: &Arc<Account>) -> CallState {
        CallState::new(RequestId::next(), Instant::now(), Duration::from_secs(1), account)
    }

    fn bytes(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_block_is_its_tenants_memory_until_its_last_byte_is_gone() {
        let account = Account::of_nobody();
        let block = Block::new(bytes(1000), &call(&account)).expect("there is room");
        assert_eq!(account.memory_bytes(), 1000 + COST_BYTES);
        let mut whole = block.into_bytes();
        let piece = whole.split_to(10);
        drop(whole);
        assert_eq!(account.memory_bytes(), 1000 + COST_BYTES);
        drop(piece);
        assert_eq!(account.memory_bytes(), 0);
    }

    #[test]
    fn of_a_buffer_all_that_it_keeps_is_counted() {
        let account = Account::of_nobody();
        let mut buffer = BytesMut::with_capacity(60_000);
        buffer.extend_from_slice(b"a few bytes");
        let block = Block::buffered(buffer, &call(&account)).expect("there is room");
        assert_eq!((block.len(), account.memory_bytes()), (11, 60_000 + COST_BYTES));
    }

    #[test]
    fn many_blocks_count_together_and_are_given_back_one_by_one() {
        let account = Account::of_nobody();
        let blocks = vec![vec![1; 100], vec![], vec![2; 200], vec![3; 1]];
        let mut blocks = Block::all(blocks, &call(&account)).expect("there is room");
        assert_eq!(account.memory_bytes(), 301 + 3 * COST_BYTES);
        assert_eq!(blocks.iter().map(Block::len).collect::<Vec<_>>(), [100, 200, 1]);
        blocks.remove(0);
        assert_eq!(account.memory_bytes(), 201 + 2 * COST_BYTES);
        let one = Block::concat(blocks).expect("there are two");
        assert_eq!((one.len(), account.memory_bytes()), (201, 201 + 2 * COST_BYTES));
        drop(one);
        assert_eq!(account.memory_bytes(), 0);
    }

    #[test]
    fn a_small_response_has_room_whatever_there_is_and_more_is_refused_and_takes_none() {
        let account = Account::of_nobody();
        let all = crate::limits::Budget::default().memory_bytes;
        assert!(account.take_memory(all - 1000));
        let large = 100 << 10;
        assert!(Block::new(bytes(large), &call(&account)).is_err());
        assert!(Block::all(vec![vec![0; large / 2], vec![0; large / 2]], &call(&account)).is_err());
        let long = call(&account);
        let small = Block::new(bytes(64 << 10), &long).expect("it is little, and the work is done");
        assert_eq!(account.memory_bytes(), all - 1000 + (64 << 10) + COST_BYTES);
        assert!(Block::new(bytes(64 << 10), &long).is_err(), "there is no end to that");
        drop(small);
        assert_eq!(account.memory_bytes(), all - 1000);
    }

    #[test]
    fn the_last_piece_has_room_of_its_own() {
        let account = Account::of_nobody();
        for (length, last) in [(10, 10), (16, 16), (17, 1), (160, 16), (163, 3)] {
            let (bytes, room) = Block::new(bytes(length), &call(&account)).expect("there is room").into_pieces(16);
            assert_eq!(account.memory_bytes(), length as u64 + COST_BYTES);
            drop(bytes);
            assert_eq!(account.memory_bytes(), last, "{length}");
            drop(room);
            assert_eq!(account.memory_bytes(), 0);
        }
    }
}

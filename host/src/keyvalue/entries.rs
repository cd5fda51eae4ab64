//! The entries of embedded stores: the tables of a tenant's file, and what a change does to them.

use std::borrow::Cow;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::{Change, Failure, Place, Store, Usage, number};

/// What every store holds. No store's name begins so.
pub(super) const USAGE: TableDefinition<&str, (u64, u64)> = TableDefinition::new("+usage");
/// The number of the last change of a tenant's, under an empty key.
const REVISION: TableDefinition<&str, u64> = TableDefinition::new("+revision");
/// A value has its revision before it.
const REVISION_BYTES: usize = 8;

type Entries<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

pub(super) type Table = redb::ReadOnlyTable<&'static str, &'static [u8]>;

/// A store's entries, if there ever were any.
pub(super) fn table(transaction: &ReadTransaction, place: &Place) -> Result<Option<Table>, TableError> {
    match transaction.open_table(Entries::new(&place.name)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keys with what they are to have: none to be gone.
type Wanted<'a> = Vec<(&'a str, Option<Cow<'a, [u8]>>)>;

/// Makes a change of a store in a transaction, all of it or nothing: the transaction goes on where a limit stops one. `stored` is what
/// all stores in the file hold together.
pub(super) fn apply(
    transaction: &WriteTransaction,
    store: &Store,
    place: &Place,
    change: &Change,
    stored: &mut u64,
) -> Result<Result<Option<i64>, Failure>, redb::Error> {
    if !store.is_at(place) {
        return Ok(Err(Failure::Denied));
    }
    let mut entries = transaction.open_table(Entries::new(&place.name))?;
    let (wanted, number) = match wanted(change, &entries)? {
        Ok(wanted) => wanted,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut usages = transaction.open_table(USAGE)?;
    let before = usages.get(place.name.as_str())?.map_or((0, 0), |usage| usage.value());
    let before = Usage { bytes: before.0, keys: before.1 };
    let mut after = before;
    for (key, new) in &wanted {
        let old = entries.get(*key)?.map(|old| content(old.value()).len() as u64);
        after.replace(key, old, new.as_ref().map(|new| new.len() as u64));
    }
    if let Err(failure) = after.check(before, store.bounds()) {
        return Ok(Err(failure));
    }
    let stored_after = stored.saturating_sub(before.bytes).saturating_add(after.bytes);
    if stored_after > *stored && !store.account().may_store(stored_after) {
        return Ok(Err(Failure::Budget));
    }
    *stored = stored_after;
    let mut revisions = transaction.open_table(REVISION)?;
    let revision = revisions.get("")?.map_or(0, |revision| revision.value()) + 1;
    revisions.insert("", revision)?;
    for (key, new) in &wanted {
        match new {
            Some(value) => entries.insert(*key, [&revision.to_le_bytes(), &**value].concat().as_slice())?,
            None => entries.remove(*key)?,
        };
    }
    usages.insert(place.name.as_str(), (after.bytes, after.keys))?;
    Ok(Ok(number))
}

/// What is to become of which keys, and the number that one was incremented to.
#[allow(clippy::type_complexity, reason = "the outer result is the file's, the inner one the guest's")]
fn wanted<'a>(
    change: &'a Change,
    entries: &redb::Table<'_, &'static str, &'static [u8]>,
) -> Result<Result<(Wanted<'a>, Option<i64>), Failure>, redb::Error> {
    Ok(match change {
        Change::Set(pairs) => {
            let wanted = pairs.iter().map(|(key, value)| (key.as_str(), Some(Cow::Borrowed(value.as_slice()))));
            Ok((wanted.collect(), None))
        }
        Change::Delete(keys) => Ok((keys.iter().map(|key| (key.as_str(), None)).collect(), None)),
        Change::Increment { key, delta } => {
            let old = entries.get(key.as_str())?.map_or(Ok(0), |old| number(content(old.value())));
            let new = old.and_then(|old| old.checked_add(*delta).ok_or(Failure::Overflow));
            new.map(|new| (vec![(key.as_str(), Some(Cow::Owned(new.to_string().into_bytes())))], Some(new)))
        }
        Change::Swap { key, revision, value } => {
            let found = entries.get(key.as_str())?.map_or(0, |old| revision_of(old.value()));
            let wanted = vec![(key.as_str(), Some(Cow::Borrowed(value.as_slice())))];
            if found == *revision { Ok((wanted, None)) } else { Err(Failure::Stale) }
        }
    })
}

/// A value without its revision.
pub(super) fn content(kept: &[u8]) -> &[u8] {
    kept.get(REVISION_BYTES..).unwrap_or_default()
}

pub(super) fn revision_of(kept: &[u8]) -> u64 {
    kept.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

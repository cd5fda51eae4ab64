//! What a guest of any kind does with key-value stores: `set,STORE,KEY,VALUE`, in words parted by commas. What came of it is an answer
//! in words, a hostile guest's too.

mod draft;

wit_bindgen::generate!({ path: "../../../wit/deps/keyvalue-draft2", world: "imports" });

use wasi::keyvalue::atomics::{self, Cas, CasError};
use wasi::keyvalue::store::{self, Bucket, Error};
use wasi::keyvalue::batch;

/// Does what the words say; `draft,…` in the older version of the interface.
pub fn run(words: &str) -> String {
    if let Some(words) = words.strip_prefix("draft,") {
        return draft::run(words);
    }
    tried(words).unwrap_or_else(|error| format!("error {error:?}"))
}

fn tried(words: &str) -> Result<String, Error> {
    let fields: Vec<&str> = words.split(',').collect();
    let open = store::open;
    let done = || "done".to_owned();
    Ok(match fields[..] {
        ["open", name] => open(name).map(|_| "open".to_owned())?,
        ["get", name, key] => shown(open(name)?.get(key)?),
        ["set", name, key, value] => open(name)?.set(key, value.as_bytes()).map(|()| done())?,
        ["delete", name, key] => open(name)?.delete(key).map(|()| done())?,
        ["exists", name, key] => open(name)?.exists(key)?.to_string(),
        ["keys", name] => keys(&open(name)?)?.join(" "),
        ["count", name] => pages(&open(name)?)?,
        ["increment", name, key, delta] => {
            atomics::increment(&open(name)?, key, delta.parse().unwrap_or(1))?.to_string()
        }
        // One after the other, as fast as it goes.
        ["times", name, key, count] => times(&open(name)?, key, count.parse().unwrap_or(0))?,
        // Keys with values of so many bytes, until there are so many or no room.
        ["fill", name, count, bytes] => fill(&open(name)?, count.parse().unwrap_or(0), bytes.parse().unwrap_or(0)),
        // A key, and a value, of so many bytes.
        ["large", name, key, value] => {
            let (key, value) = ("k".repeat(key.parse().unwrap_or(0)), vec![b'v'; value.parse().unwrap_or(0)]);
            open(name)?.set(&key, &value).map(|()| done())?
        }
        ["set-many", name, ref pairs @ ..] => {
            let pairs: Vec<_> = pairs.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].into())).collect();
            batch::set_many(&open(name)?, &pairs).map(|()| done())?
        }
        ["get-many", name, ref keys @ ..] => {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            let found = batch::get_many(&open(name)?, &keys)?;
            let found = found.into_iter().map(|pair| pair.map_or("-".to_owned(), |(key, value)| format!("{key}={}", text(value))));
            found.collect::<Vec<_>>().join(" ")
        }
        ["delete-many", name, ref keys @ ..] => {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            batch::delete_many(&open(name)?, &keys).map(|()| done())?
        }
        // The value of a handle, then its swap; `meanwhile` is set by another way in between.
        ["swap", name, key, value] => swap(&open(name)?, key, None, value)?,
        ["swap", name, key, meanwhile, value] => swap(&open(name)?, key, Some(meanwhile), value)?,
        // So many handles at once.
        ["handles", name, count] => {
            let mut open_ones = Vec::new();
            for _ in 0..count.parse().unwrap_or(0) {
                open_ones.push(open(name)?);
            }
            format!("{} handles", open_ones.len())
        }
        // Opens it, says so, and uses it for as long as it may.
        ["hold", name] => hold(&open(name)?),
        _ => format!("no {words} here"),
    })
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or("none".to_owned(), |value| format!("[{}]", text(value)))
}

fn keys(bucket: &Bucket) -> Result<Vec<String>, Error> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        keys.extend(page.keys);
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(keys),
        }
    }
}

fn pages(bucket: &Bucket) -> Result<String, Error> {
    let first = bucket.list_keys(None)?;
    let all = keys(bucket)?;
    let is_sorted = all.is_sorted_by(|one, next| one < next);
    Ok(format!("{} keys, {} at first, sorted {is_sorted}", all.len(), first.keys.len()))
}

fn times(bucket: &Bucket, key: &str, count: u32) -> Result<String, Error> {
    let mut last = 0;
    for _ in 0..count {
        last = atomics::increment(bucket, key, 1)?;
    }
    Ok(last.to_string())
}

fn fill(bucket: &Bucket, count: u32, bytes: usize) -> String {
    let value = vec![b'v'; bytes];
    for number in 0..count {
        if let Err(error) = bucket.set(&format!("key-{number:06}"), &value) {
            return format!("{number}: error {error:?}");
        }
    }
    format!("{count} keys")
}

fn swap(bucket: &Bucket, key: &str, meanwhile: Option<&str>, value: &str) -> Result<String, Error> {
    let cas = Cas::new(bucket, key)?;
    let before = shown(cas.current()?);
    if let Some(meanwhile) = meanwhile {
        bucket.set(key, meanwhile.as_bytes())?;
    }
    Ok(match atomics::swap(cas, value.as_bytes()) {
        Ok(()) => format!("{before} swapped"),
        Err(CasError::CasFailed(newer)) => {
            let now = shown(newer.current()?);
            let again = atomics::swap(newer, value.as_bytes()).is_ok();
            format!("{before} is {now} by now, swapped then: {again}")
        }
        Err(CasError::StoreError(error)) => return Err(error),
    })
}

fn hold(bucket: &Bucket) -> String {
    eprintln!("the store is open");
    let mut uses = 0_u32;
    loop {
        match bucket.exists("a") {
            Ok(_) => uses += 1,
            Err(error) => return format!("used it {}, then {error:?}", if uses > 0 { "often" } else { "never" }),
        }
    }
}

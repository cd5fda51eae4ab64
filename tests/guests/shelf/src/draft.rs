//! The same in the older version of the interface.

wit_bindgen::generate!({ path: "../../../wit/deps/keyvalue-draft", world: "imports" });

use wasi::keyvalue::store::{self, Bucket, Error};
use wasi::keyvalue::{atomics, batch};

pub(crate) fn run(words: &str) -> String {
    tried(words).unwrap_or_else(|error| format!("error {error:?}"))
}

fn tried(words: &str) -> Result<String, Error> {
    let fields: Vec<&str> = words.split(',').collect();
    let open = store::open;
    Ok(match fields[..] {
        ["get", name, key] => super::shown(open(name)?.get(key)?),
        ["set", name, key, value] => open(name)?.set(key, value.as_bytes()).map(|()| "done".to_owned())?,
        ["delete", name, key] => open(name)?.delete(key).map(|()| "done".to_owned())?,
        ["exists", name, key] => open(name)?.exists(key)?.to_string(),
        ["increment", name, key, delta] => {
            atomics::increment(&open(name)?, key, delta.parse().unwrap_or(1))?.to_string()
        }
        ["count", name] => count(&open(name)?)?,
        ["batch", name] => {
            let bucket = open(name)?;
            batch::set_many(&bucket, &[("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())])?;
            let found = batch::get_many(&bucket, &["a".to_owned(), "c".to_owned()])?;
            batch::delete_many(&bucket, &["a".to_owned()])?;
            format!("{} of them, a is there: {}", found.iter().flatten().count(), bucket.exists("a")?)
        }
        ["cursor", name, cursor] => {
            let page = open(name)?.list_keys(cursor.parse().ok())?;
            format!("{} keys", page.keys.len())
        }
        _ => format!("no {words} here"),
    })
}

fn count(bucket: &Bucket) -> Result<String, Error> {
    let (mut count, mut cursor) = (0, None);
    loop {
        let page = bucket.list_keys(cursor)?;
        count += page.keys.len();
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(format!("{count} keys")),
        }
    }
}

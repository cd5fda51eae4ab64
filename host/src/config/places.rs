//! Which of the places that settings name may lie in which: what the host believes is kept where neither guests nor
//! those who deploy write, or they would say what is there.
//!
//! Two kinds of paths. Where apps were granted a directory no link is followed when it is opened (`unlinked`), so that
//! what it says is where it leads; nothing on the disk has a say in that. In other paths links are followed, as
//! operators are used to: so each step of such a path has to be the operator's.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::load::FILE_NAME;
use super::{
    Access, AccessLogTarget, Config, ConfigError, DirectoryGrant, Grants, Place, RedisUrl, SecretSource, Settings,
};
use crate::unlinked::led_elsewhere;

/// What follows so many links leads nowhere, as in the kernel.
const LINKS_MAX: u32 = 40;

/// What guests may write to lies in no directory of the host's, and none of these in it.
pub(super) fn check_directories(config: &Config, apps: &Path, state: &Path) -> Result<(), ConfigError> {
    let data = real_path(&config.data_dir)?;
    let check = |what: String, path: &Path, others: &[(&str, &Path)]| {
        let clash = others.iter().find(|(_, other)| path.starts_with(other) || other.starts_with(path));
        match clash {
            Some((name, other)) => {
                let reason = format!("it and the {name} directory {} may not lie in each other", other.display());
                Err(ConfigError::new(what, reason))
            }
            None => Ok(()),
        }
    };
    let own = [("apps", apps), ("state", state)];
    if config.has_data() {
        check(format!("data_dir {}", config.data_dir.display()), &data, &own)?;
    }
    for (table, grants) in grants(config) {
        for (place, directory) in &grants.directories {
            let what = format!("{table}.directories.\"{place}\" {}", directory.path.display());
            check(what, &said_path(&directory.path)?, &[own[0], own[1], ("data", &data)])?;
        }
    }
    Ok(())
}

/// No file that the host reads or writes is reached by way of a directory that others write to, who could put a link
/// there.
pub(super) fn check_files(config: &Config, settings: &Settings, tenants_dir: &Path) -> Result<(), ConfigError> {
    let written = written(config)?;
    for (what, path) in trusted(config, settings, tenants_dir) {
        if let Some((folder, writers)) = entered(path, &written)? {
            return Err(ConfigError::new(
                format!("{what} {}", path.display()),
                format!(
                    "the way to it leads into {}, where {writers} write, who could put something else in its place: keep it \
                     elsewhere",
                    folder.display()
                ),
            ));
        }
    }
    Ok(())
}

/// A line for each directory that is granted by way of a link, so that apps which ask for it are refused. No error: where guests write they
/// may have made it.
pub(super) fn linked(config: &Config) -> Vec<String> {
    let directories = grants(config).flat_map(|(table, grants)| {
        grants.directories.iter().map(move |(place, directory)| (format!("{table}.directories.\"{place}\""), directory))
    });
    let line = |(key, directory): (String, &DirectoryGrant)| {
        led_elsewhere(&directory.path).map(|real| format!("{key}: {}", linked_text(&directory.path, &real)))
    };
    directories.filter_map(line).collect()
}

pub(super) fn linked_text(path: &Path, real: &Path) -> String {
    format!(
        "a symbolic link is on the way to {}, and none is followed, so that apps which ask for it are refused: grant {}",
        path.display(),
        real.display()
    )
}

/// What is granted, each with the table that says it.
fn grants(config: &Config) -> impl Iterator<Item = (String, &Grants)> {
    let tenants = config.tenants.values().map(|tenant| (format!("tenant.{}.grant", tenant.name), &tenant.grants));
    std::iter::once(("grant".to_owned(), &config.grants)).chain(tenants)
}

/// Directories that others than the operator write to, and who does.
fn written(config: &Config) -> Result<HashMap<PathBuf, &'static str>, ConfigError> {
    let mut written = HashMap::from([(real_path(&config.apps_dir)?, "those who deploy")]);
    if config.has_data() {
        written.insert(real_path(&config.data_dir)?, "guests");
    }
    let directories = grants(config).flat_map(|(_, grants)| grants.directories.values());
    for directory in directories.filter(|directory| directory.access == Access::Write) {
        written.insert(said_path(&directory.path)?, "guests");
    }
    Ok(written)
}

/// What the host believes, or writes to, by the name of its key.
fn trusted<'c>(config: &'c Config, settings: &'c Settings, tenants_dir: &'c Path) -> Vec<(String, &'c Path)> {
    let mut trusted = Vec::new();
    let mut add = |what: &str, path: &'c Path| trusted.push((what.to_owned(), path));
    add("tenants_dir", tenants_dir);
    add("apps_dir", &config.apps_dir);
    add("state_dir", &config.state_dir);
    if config.has_data() {
        add("data_dir", &config.data_dir);
    }
    match &settings.file {
        Some(file) => add("the settings file", file),
        None if Path::new(FILE_NAME).exists() => add("the settings file", Path::new(FILE_NAME)),
        None => {}
    }
    if let Some(certificate) = &config.certificate {
        add("certfile", &certificate.certfile);
        add("keyfile", &certificate.keyfile);
    }
    if let Some(cafile) = &config.outbound_cafile {
        add("outbound_cafile", cafile);
    }
    if let Some(RedisUrl::Secret(grant)) = &config.keyvalue_redis
        && let SecretSource::File(path) = &grant.source
    {
        add("keyvalue_redis", path);
    }
    if let Some(AccessLogTarget::File(path)) = &config.access_log {
        add("access_log.file", path);
    }
    config.confine_paths.iter().for_each(|path| add("confine_paths", path));
    for bind in &config.bind {
        if let Place::Unix(path) = &bind.place {
            add("bind", path);
        }
    }
    for (table, grants) in grants(config) {
        for (name, grant) in &grants.secrets {
            if let SecretSource::File(path) = &grant.source {
                trusted.push((format!("{table}.secrets.{name}"), path));
            }
        }
    }
    trusted
}

/// The first of these directories in which a name is looked up on the way along a path, with all links that there are.
/// What lies in it is not looked at: that may be as somebody else likes.
fn entered<'w>(
    path: &Path,
    written: &'w HashMap<PathBuf, &'static str>,
) -> Result<Option<(&'w Path, &'static str)>, ConfigError> {
    let parts = |path: &Path| -> Vec<OsString> { path.iter().rev().map(OsString::from).collect() };
    let (mut left, mut at, mut links) = (parts(&absolute(path)?), PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => _ = at.pop(),
            Some(Component::Normal(name)) => {
                if let Some((folder, writers)) = at.ancestors().find_map(|folder| written.get_key_value(folder)) {
                    return Ok(Some((folder, writers)));
                }
                at.push(name);
                if let Ok(target) = at.read_link() {
                    at.pop();
                    left.extend(parts(&target));
                    links += 1;
                }
                if links > LINKS_MAX {
                    return Ok(None);
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|error| ConfigError::new(path.display().to_string(), error.to_string()))
}

/// The path without dots, whatever is there.
fn said_path(path: &Path) -> Result<PathBuf, ConfigError> {
    let mut said = PathBuf::new();
    extend(&mut said, &absolute(path)?);
    Ok(said)
}

/// The path without links and dots. Of what does not exist yet only the dots can be seen.
pub(super) fn real_path(path: &Path) -> Result<PathBuf, ConfigError> {
    let absolute = absolute(path)?;
    for ancestor in absolute.ancestors() {
        let Ok(mut real) = ancestor.canonicalize() else {
            continue;
        };
        extend(&mut real, absolute.strip_prefix(ancestor).unwrap_or(Path::new("")));
        return Ok(real);
    }
    Ok(absolute)
}

fn extend(path: &mut PathBuf, by: &Path) {
    for component in by.components() {
        match component {
            Component::ParentDir => _ = path.pop(),
            component => path.push(component),
        }
    }
}

//! A host that was started by root, for a port below 1024 or for files that nobody else may read, and goes on as somebody else.
//!
//! Names are those of `/etc/passwd` and `/etc/group`; whom only a directory service knows is given by number.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::{Gid, Uid, getegid, geteuid};

use crate::config::Config;

/// Whom the host is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
    /// All that it belongs to.
    groups: Vec<Gid>,
    /// As the settings say it.
    name: String,
}

impl User {
    /// The user that the settings name; none where they name none.
    ///
    /// # Errors
    /// If there is no such user or group, or this process may not become it.
    pub fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(user) = &config.user else {
            ensure!(config.group.is_none(), "group: it comes with a user: give user as well");
            return Ok(None);
        };
        let read = |path| fs::read_to_string(path).with_context(|| format!("{path} cannot be read"));
        let found = Self::find(user, config.group.as_deref(), &read("/etc/passwd")?, &read("/etc/group")?)?;
        let own = geteuid();
        if own.is_root() || (own, getegid()) == (found.uid, found.gid) {
            ensure!(!found.uid.is_root(), "user = \"{user}\": that is root, from whom this is to lead away");
            return Ok(Some(found));
        }
        let own = own.as_raw();
        bail!(
            "user = \"{user}\": only root can become somebody else, and this is user {own}: start wasgi as root, or as {user}"
        )
    }

    /// `passwd` and `groups` are the texts of the files.
    fn find(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> anyhow::Result<Self> {
        // name:password:uid:gid:…
        let account = fields(passwd).find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
        let number =
            |text: Option<&&str>| text.and_then(|text| text.parse::<u32>().ok()).filter(|number| *number != u32::MAX);
        let uid = match &account {
            Some(fields) => number(fields.get(2)),
            None => number(Some(&user)),
        };
        let uid = uid.ok_or_else(|| {
            anyhow!("user = \"{user}\": there is no such user in /etc/passwd (a number does without)")
        })?;
        // name:password:gid:member,member
        let gid = match group {
            None => account.as_ref().and_then(|fields| number(fields.get(3))).ok_or_else(|| {
                anyhow!("user = \"{user}\": nobody in /etc/passwd has this number: give a group, too")
            })?,
            Some(group) => {
                let found = fields(groups).find(|fields| fields.first() == Some(&group));
                found.and_then(|fields| number(fields.get(2))).or_else(|| number(Some(&group))).ok_or_else(|| {
                    anyhow!("group = \"{group}\": there is no such group in /etc/group (a number does without)")
                })?
            }
        };
        let name = account.as_ref().and_then(|fields| fields.first().copied());
        let is_member = |fields: &Vec<&str>| {
            name.is_some_and(|name| {
                fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
            })
        };
        let further = fields(groups).filter(is_member).filter_map(|fields| number(fields.get(2)));
        let mut groups: Vec<Gid> = further.chain([gid]).map(Gid::from_raw).collect();
        groups.sort_unstable_by_key(|gid| gid.as_raw());
        groups.dedup();
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, name: user.to_owned() })
    }

    /// Gives a file that was made as root to the user.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Makes a directory for the user where there is none. One that is there must be the user's.
    ///
    /// # Errors
    /// Names the directory, and what to do.
    pub fn settle(&self, key: &str, path: &Path) -> anyhow::Result<()> {
        if !path.exists() {
            let made =
                make_way(path).and_then(|()| DirBuilder::new().mode(0o700).create(path)).and_then(|()| self.own(path));
            made.with_context(|| format!("{key} {} cannot be made", path.display()))?;
        }
        let owner = path.metadata().with_context(|| format!("{key} {} cannot be read", path.display()))?.uid();
        ensure!(
            owner == self.uid.as_raw(),
            "{key} {} belongs to user {owner}, and wasgi is to be user {self}: chown it, or name another one",
            path.display(),
        );
        Ok(())
    }

    /// Whether the user, which this process has become, can list a directory.
    ///
    /// # Errors
    /// Says what to do.
    pub fn can_read(&self, path: &Path) -> anyhow::Result<()> {
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK;
        let is_readable = rustix::fs::access(path, access);
        is_readable.with_context(|| format!("{} cannot be read by user {self}: chmod or chown it", path.display()))
    }

    /// Becomes the user, for good: nothing that this process does from now on is done as root. It must not have further threads.
    ///
    /// # Errors
    /// If it did not come about. The process must not go on then.
    pub fn become_it(&self) -> anyhow::Result<()> {
        // Whoever started this process as the user has also said what else it may.
        if !geteuid().is_root() {
            return Ok(());
        }
        // The kernel changes a thread, not a process.
        let threads = fs::read_dir("/proc/self/task").context("/proc/self/task")?.count();
        ensure!(threads == 1, "it has {threads} threads already");
        rustix::thread::set_thread_groups(&self.groups).context("setgroups")?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid).context("setresgid")?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid).context("setresuid")?;
        self.verify()
    }

    /// Whether it has come about, and there is no way back.
    fn verify(&self) -> anyhow::Result<()> {
        let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let field = |name: &str| -> Vec<&str> {
            let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.unwrap_or_default().split_whitespace().collect()
        };
        // Real, effective, saved, and for files.
        for (name, wanted) in [("Uid", self.uid.as_raw()), ("Gid", self.gid.as_raw())] {
            let wanted = wanted.to_string();
            let found = field(name);
            ensure!(found.len() == 4 && found.iter().all(|id| *id == wanted), "{name} is {}", found.join(" "));
        }
        let groups: Vec<String> = self.groups.iter().map(|gid| gid.as_raw().to_string()).collect();
        ensure!(field("Groups") == groups, "it is in other groups: {}", field("Groups").join(" "));
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let kept = field(name).concat();
            ensure!(
                !kept.is_empty() && kept.bytes().all(|byte| byte == b'0'),
                "it has kept capabilities: {name} {kept}"
            );
        }
        let root = Uid::ROOT;
        ensure!(rustix::thread::set_thread_res_uid(root, root, root).is_err(), "it can become root again");
        Ok(())
    }
}

/// Of the lines of such a file.
fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

impl std::fmt::Display for User {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uid = self.uid.as_raw();
        match self.name.parse() == Ok(uid) {
            true => write!(formatter, "{uid}"),
            false => write!(formatter, "{} ({uid})", self.name),
        }
    }
}

/// Makes the folders on the way to a path that are not there. Others may go through them, as through any, whatever the umask: the user
/// has to.
fn make_way(path: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
    missing.into_iter().rev().try_for_each(|folder| {
        DirBuilder::new().mode(0o755).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/false\nbroken\nodd:x:4294967295:1::/:\n";
    const GROUP: &str = "root:x:0:\nown:x:34:\ntls:x:50:other,web\nweb2:x:60:webber\n";

    fn find(user: &str, group: Option<&str>) -> Result<(u32, u32, Vec<u32>), String> {
        let found = User::find(user, group, PASSWD, GROUP).map_err(|error| error.to_string())?;
        Ok((found.uid.as_raw(), found.gid.as_raw(), found.groups.iter().map(|gid| gid.as_raw()).collect()))
    }

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        assert_eq!(find("web", None), Ok((33, 34, vec![34, 50])));
        assert_eq!(find("33", None), Ok((33, 34, vec![34, 50])));
        assert_eq!(find("web", Some("web2")), Ok((33, 60, vec![50, 60])));
        assert_eq!(find("4242", Some("7")), Ok((4242, 7, vec![7])));
    }

    #[test]
    fn who_is_not_there_is_refused_in_words() {
        let refused = |user, group| find(user, group).unwrap_err();
        assert!(refused("nobody-here", None).contains("there is no such user"));
        assert!(refused("broken", None).contains("there is no such user"));
        assert!(refused("4242", None).contains("give a group, too"));
        assert!(refused("web", Some("no-group")).contains("there is no such group"));
        // Which the kernel takes for "as it is".
        assert!(
            find("odd", None).is_err()
                && find("4294967295", Some("7")).is_err()
                && find("web", Some("4294967295")).is_err()
        );
    }

    #[test]
    fn root_is_no_aim_and_only_root_becomes_another() {
        let check = |user: Option<&str>, group: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let config = Config { user: owned(user), group: owned(group), ..Config::default() };
            User::of(&config).map_err(|error| error.to_string())
        };
        assert_eq!(check(None, None), Ok(None));
        assert!(check(None, Some("root")).unwrap_err().contains("give user as well"));
        let another = check(Some("4242424"), Some("7"));
        if geteuid().is_root() {
            assert_eq!(another.unwrap().map(|user| user.to_string()), Some("4242424".to_owned()));
            assert!(check(Some("root"), None).unwrap_err().contains("lead away"));
        } else {
            assert!(another.unwrap_err().contains("only root can become somebody else"));
        }
    }
}

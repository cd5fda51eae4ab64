//! The walls around the host itself: it opens the files that its settings lead to, and no others, whatever its user could open.
//!
//! They are put up once, after the sockets are bound and before there is a second thread, since Landlock confines threads. A reload
//! that would lead elsewhere is refused: what is confined cannot be freed.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, ensure};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};

use super::kernel::{self, Wall};
use crate::config::{
    self, AccessLogTarget, Config, Confine, DirectoryGrant, Grants, Place, RedisUrl, SecretSource, Settings,
};
use crate::unlinked::open_directory;

/// What the host may do beneath a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    /// The compiler's process is this very binary; and the C library is opened as programs are.
    Run,
    Write,
    /// Write to files, or make them: a log that is rotated by others.
    Append,
    /// Remove the socket that it has made.
    Remove,
}

impl Use {
    fn access(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Read => read,
            Self::Run => read | AccessFs::Execute,
            Self::Write => {
                let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
                AccessFs::from_all(ABI::V5) & !never
            }
            Self::Append => AccessFs::WriteFile | AccessFs::MakeReg,
            Self::Remove => AccessFs::RemoveFile.into(),
        }
    }

    /// Whether who may do this may do the other.
    fn covers(self, other: Self) -> bool {
        self.access().contains(other.access())
    }
}

/// A path, and what may be done with it and beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    path: PathBuf,
    usage: Use,
}

/// What is in force.
#[derive(Debug)]
pub struct Confinement {
    rules: Vec<Rule>,
    standing: Vec<Wall>,
    missing: Vec<Wall>,
    /// Why there are none, though that is what the settings ask for.
    open: Option<&'static str>,
}

/// What of the machine every host uses: the C library with its parts, what the kernel says of processors and memory, and itself.
const MACHINE: &[(&str, Use)] = &[
    ("/proc", Use::Read),
    ("/proc/self/exe", Use::Run),
    ("/sys/fs/cgroup", Use::Read),
    ("/sys/devices/system", Use::Read),
    ("/etc/ld.so.cache", Use::Read),
    ("/lib", Use::Run),
    ("/lib64", Use::Run),
    ("/usr/lib", Use::Run),
    ("/usr/lib64", Use::Run),
    ("/nix/store", Use::Run),
    ("/dev/null", Use::Write),
    ("/dev/urandom", Use::Read),
];

/// What is read when apps go elsewhere: how names become addresses, and which authorities are believed. Such files are replaced by
/// others whenever the network changes; so their folders are read.
const ELSEWHERE: &[&str] = &[
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/usr/share/ca-certificates/mozilla",
];

impl Confinement {
    /// Confines this thread, and those that it starts. For a process that has no others.
    ///
    /// # Errors
    /// With `confine = "strict"`, if anything is missing; says what.
    pub fn put_up(config: &Config, settings: &Settings) -> anyhow::Result<Self> {
        let (standing, missing) = kernel::walls();
        let nothing = |open| Self { rules: Vec::new(), standing: Vec::new(), missing: Vec::new(), open: Some(open) };
        match config.confine {
            Confine::Off => return Ok(nothing("confine = \"off\"")),
            // Builders are compilers, interpreters and package managers, with files all over the machine.
            Confine::On if config.dev => return Ok(nothing("development mode starts builders")),
            Confine::On => {}
            Confine::Strict => check_strict(config, &missing)?,
        }
        let rules = rules(config, settings);
        restrict(&rules).context("this process cannot be confined (confine = \"off\" does without)")?;
        Ok(Self { rules, standing, missing, open: None })
    }

    /// New settings without what lies outside of what this host may use: such grants are out of reach, and files of the host's own stay
    /// those that are in force. What the settings take away is taken away all the same. Says what was left out, a line each.
    ///
    /// # Errors
    /// If that leaves something that lies outside; says what.
    pub fn narrow(
        &self,
        mut new: Config,
        in_force: &Config,
        settings: &Settings,
    ) -> anyhow::Result<(Config, Vec<String>)> {
        let mut left_out = Vec::new();
        for (table, grants) in tables(&mut new) {
            let mut leave_out = |kind: &str, name: &str, path: &Path| {
                left_out.push(format!("{table}.{kind}.\"{}\" = {}", name.escape_debug(), path.display()));
                grants.out_of_reach.insert(name.to_owned(), path.to_owned());
            };
            grants.directories.retain(|name, directory| {
                let keep = directory_rule(directory).is_none_or(|rule| self.reaches(&rule));
                if !keep {
                    leave_out("directories", name, &directory.path);
                }
                keep
            });
            grants.secrets.retain(|name, secret| match &secret.source {
                SecretSource::File(path) if !file_rules(path).iter().all(|rule| self.reaches(rule)) => {
                    leave_out("secrets", name, path);
                    false
                }
                _ => true,
            });
        }
        for (key, copy) in OWN_FILES {
            let mut tried = in_force.clone();
            copy(&mut tried, &new);
            if self.admits(&tried, settings).is_err() {
                copy(&mut new, in_force);
                left_out.push((*key).to_owned());
            }
        }
        self.admits(&new, settings)?;
        Ok((new, left_out))
    }

    /// Whether what new settings lead to is within what this host may use.
    ///
    /// # Errors
    /// Names what is not.
    pub fn admits(&self, config: &Config, settings: &Settings) -> anyhow::Result<()> {
        for wanted in rules(config, settings) {
            ensure!(
                self.reaches(&wanted),
                "{} lies outside of what this host has confined itself to when it was started: a restart leads there (and \
                 confine_paths names folders of which none is needed)",
                wanted.path.display()
            );
        }
        Ok(())
    }

    fn reaches(&self, wanted: &Rule) -> bool {
        let is_within = |rule: &Rule| rule.usage.covers(wanted.usage) && wanted.path.starts_with(&rule.path);
        // What is not there leads nowhere.
        let leads_nowhere = || wanted.usage != Use::Write && !wanted.path.exists();
        let is_open = self.open.is_some() || !self.standing.contains(&Wall::Files);
        is_open || self.rules.iter().any(is_within) || leads_nowhere()
    }
}

/// How to take one setting over.
type Copy = fn(&mut Config, &Config);

/// Files of the host's own that a reload may name anew.
const OWN_FILES: &[(&str, Copy)] = &[
    ("certfile", |to, from| to.certificate.clone_from(&from.certificate)),
    ("outbound_cafile", |to, from| to.outbound_cafile.clone_from(&from.outbound_cafile)),
    ("keyvalue_redis", |to, from| to.keyvalue_redis.clone_from(&from.keyvalue_redis)),
    ("access_log.file", |to, from| to.access_log.clone_from(&from.access_log)),
];

/// All grants, each with where it stands.
fn tables(config: &mut Config) -> impl Iterator<Item = (String, &mut Grants)> {
    let tenants = config.tenants.iter_mut().map(|(name, tenant)| (format!("tenant.{name}.grant"), &mut tenant.grants));
    std::iter::once(("grant".to_owned(), &mut config.grants)).chain(tenants)
}

/// None where a guest has made a link of what lies where it writes: that leads nowhere, here as well.
fn directory_rule(directory: &DirectoryGrant) -> Option<Rule> {
    let usage = if directory.access == config::Access::Write { Use::Write } else { Use::Read };
    let path = match open_directory(&directory.path) {
        // Where it is in truth, whatever becomes of the path meanwhile.
        Ok(handle) => real_of(&handle, &directory.path),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return None,
        Err(_) => absolute(&directory.path),
    };
    Some(Rule { path, usage })
}

/// Editors, and whoever renews certificates and secrets, put other files in their place. Of a link, both where it is and where it leads.
fn file_rules(file: &Path) -> [Rule; 2] {
    [beside(file), lexical_beside(file)].map(|path| Rule { path, usage: Use::Read })
}

impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.open {
            Some(why) => write!(formatter, "not confined: {why}"),
            None => formatter.write_str(&text(&self.standing, &self.missing)),
        }
    }
}

fn text(standing: &[Wall], missing: &[Wall]) -> String {
    match missing {
        [] => format!("confined: {}", kernel::texts(standing)),
        missing => format!("confined: {}; this kernel lacks {}", kernel::texts(standing), kernel::texts(missing)),
    }
}

/// Whether a host with these settings may start on this kernel. To be asked before anything is touched.
///
/// # Errors
/// With `confine = "strict"`, if anything is missing; says what.
pub fn check(config: &Config) -> anyhow::Result<()> {
    match config.confine {
        Confine::Off | Confine::On => Ok(()),
        Confine::Strict => check_strict(config, &kernel::walls().1),
    }
}

/// What a host with these settings would have on this kernel.
pub fn forecast(config: &Config) -> String {
    let (standing, missing) = kernel::walls();
    match config.confine {
        Confine::Off => "not confined: confine = \"off\"".to_owned(),
        Confine::On if config.dev => "not confined: development mode starts builders".to_owned(),
        Confine::On => text(&standing, &missing),
        Confine::Strict => match check_strict(config, &missing) {
            Ok(()) => text(&standing, &missing),
            Err(error) => format!("it does not start: {error:#}"),
        },
    }
}

fn check_strict(config: &Config, missing: &[Wall]) -> anyhow::Result<()> {
    let refused = "confine = \"strict\"";
    ensure!(!config.dev, "{refused}: development mode starts builders, which cannot be confined");
    ensure!(missing.is_empty(), "{refused}: this kernel lacks {}", kernel::texts(missing));
    let is_root = rustix::process::geteuid().is_root() && config.user.is_none();
    ensure!(!is_root, "{refused}: it would run as root, who can do more than files: name a user");
    Ok(())
}

fn restrict(rules: &[Rule]) -> anyhow::Result<()> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        // No port is bound any more, since no rule says so. Where guests connect to is judged by their grants.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?;
    let mut created: RulesetCreated = ruleset.create()?;
    for Rule { path, usage } in rules {
        // What is not there cannot be opened either.
        let Ok(handle) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { usage.access() } else { usage.access() & AccessFs::from_file(ABI::V5) };
        created = created.add_rule(PathBeneath::new(handle, access))?;
    }
    created.restrict_self()?;
    Ok(())
}

/// All that a host with these settings uses.
fn rules(config: &Config, settings: &Settings) -> Vec<Rule> {
    let mut rules: Vec<Rule> =
        MACHINE.iter().map(|(path, usage)| Rule { path: PathBuf::from(path), usage: *usage }).collect();
    let mut add = |path: PathBuf, usage| rules.push(Rule { path, usage });
    // The compiler's process says there that it is to go first where memory runs out. Root could change the kernel's
    // own settings there.
    if !rustix::process::geteuid().is_root() {
        add(PathBuf::from("/proc"), Use::Append);
    }
    // Deployers put another directory in its place.
    add(beside(&config.apps_dir), Use::Read);
    add(real(&config.apps_dir), Use::Read);
    add(real(&config.state_dir), Use::Write);
    if config.has_data() || config.data_dir.exists() {
        add(real(&config.data_dir), Use::Write);
    }
    let grants = || std::iter::once(&config.grants).chain(config.tenants.values().map(|tenant| &tenant.grants));
    // Whether or not apps may go elsewhere now: that is granted without a restart.
    ELSEWHERE.iter().map(Path::new).filter(|path| path.exists()).for_each(|path| add(beside(path), Use::Read));
    let mut files = vec![settings.file.clone().unwrap_or_else(|| PathBuf::from("wasgi.toml"))];
    files.extend(
        config.certificate.iter().flat_map(|certificate| [certificate.certfile.clone(), certificate.keyfile.clone()]),
    );
    files.extend(config.outbound_cafile.clone());
    let redis = config.keyvalue_redis.iter().filter_map(|url| match url {
        RedisUrl::Secret(secret) => Some(secret),
        RedisUrl::Said(_) => None,
    });
    let secrets = grants().flat_map(|grants| grants.secrets.values()).chain(redis);
    files.extend(secrets.filter_map(|secret| match &secret.source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Environment(_) => None,
    }));
    for Rule { path, usage } in files.iter().flat_map(|file| file_rules(file)) {
        add(path, usage);
    }
    if let Ok(tenants_dir) = Config::tenants_dir(settings) {
        add(real(&tenants_dir), Use::Read);
    }
    // What is granted there later may be written to, too.
    config.confine_paths.iter().for_each(|path| add(real(path), Use::Write));
    for directory in grants().flat_map(|grants| grants.directories.values()) {
        if let Some(Rule { path, usage }) = directory_rule(directory) {
            add(path, usage);
        }
    }
    if let Some(AccessLogTarget::File(file)) = &config.access_log {
        add(lexical_beside(file), Use::Append);
    }
    for bind in &config.bind {
        if let Place::Unix(path) = &bind.place {
            add(lexical_beside(path), Use::Remove);
        }
    }
    rules
}

/// The path as the kernel resolves it; of what is not there, as it is written.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| absolute(path))
}

/// The path of what is open.
fn real_of(handle: &OwnedFd, path: &Path) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).unwrap_or_else(|_| absolute(path))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder of what a path leads to; the thing itself where that folder is the root of all.
fn beside(path: &Path) -> PathBuf {
    let real = real(path);
    folder(&real).map_or(real.clone(), Path::to_owned)
}

/// The folder that the name itself is in.
fn lexical_beside(path: &Path) -> PathBuf {
    let absolute = absolute(path);
    folder(&absolute).map_or_else(|| real(&absolute), real)
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| parent.components().any(|part| matches!(part, Component::Normal(_))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_may_be_used_follows_from_the_settings_and_new_ones_are_judged_by_it() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let folder = folder.path().canonicalize().expect("it is there");
        for name in ["site/apps", "site/state", "elsewhere/apps", "site/more", "grants/new"] {
            fs::create_dir_all(folder.join(name)).expect("it is ours");
        }
        let settings = Settings { file: Some(folder.join("site/wasgi.toml")), ..Settings::default() };
        let config = Config {
            apps_dir: folder.join("site/apps"),
            state_dir: folder.join("site/state"),
            data_dir: folder.join("site/data"),
            confine_paths: vec![folder.join("grants")],
            ..Config::default()
        };
        let confinement = Confinement {
            rules: rules(&config, &settings),
            standing: Wall::ALL.to_vec(),
            missing: Vec::new(),
            open: None,
        };
        let admits = |config: Config| confinement.admits(&config, &settings).map_err(|error| error.to_string());
        assert_eq!(admits(config.clone()), Ok(()));
        // Another directory beside the old one, which deployers make.
        assert_eq!(admits(Config { apps_dir: folder.join("site/more"), ..config.clone() }), Ok(()));
        let moved = admits(Config { apps_dir: folder.join("elsewhere/apps"), ..config.clone() });
        assert!(
            moved.as_ref().is_err_and(|error| error.contains("elsewhere") && error.contains("restart")),
            "{moved:?}"
        );
        // A grant that leads to a folder which was named, and one that does not.
        let granting = |path: PathBuf| {
            let directory = DirectoryGrant {
                path,
                access: config::Access::Write,
                bytes_max: None,
                names_max: None,
                apps: config::AppNames::all(),
            };
            let mut config = config.clone();
            config.grants.directories.insert("/media".to_owned(), directory);
            config
        };
        assert_eq!(admits(granting(folder.join("grants/new"))), Ok(()));
        assert!(admits(granting(folder.join("elsewhere"))).is_err_and(|error| error.contains("confine_paths")));
        // What it takes away is taken away, what it would need is left out, and said.
        let moved =
            Config { outbound_cafile: Some(folder.join("elsewhere/ca.pem")), ..granting(folder.join("elsewhere")) };
        let (narrowed, left_out) = confinement.narrow(moved, &config, &settings).expect("the rest is within");
        assert_eq!((narrowed.grants.directories.len(), narrowed.outbound_cafile), (0, None));
        assert_eq!(narrowed.grants.out_of_reach["/media"], folder.join("elsewhere"));
        let grant = format!("grant.directories.\"/media\" = {}", folder.join("elsewhere").display());
        assert_eq!(left_out, [grant, "outbound_cafile".to_owned()]);
        // What may be read may not be written.
        let log = AccessLogTarget::File(folder.join("site/more/access.log"));
        assert!(admits(Config { access_log: Some(log), ..config.clone() }).is_err());
        let open = Confinement { open: Some("nothing"), ..confinement };
        assert!(open.admits(&Config { apps_dir: folder.join("elsewhere/apps"), ..config }, &settings).is_ok());
    }

    #[test]
    fn nothing_leads_to_the_root_of_all() {
        let config = Config { apps_dir: "/apps".into(), ..Config::default() };
        let settings = Settings { file: Some("/wasgi.toml".into()), ..Settings::default() };
        assert!(rules(&config, &settings).iter().all(|rule| rule.path.components().count() > 1));
    }

    #[test]
    fn strict_names_what_is_missing() {
        let strict = |config: Config, missing: &[Wall]| {
            check_strict(&Config { user: Some("nobody".to_owned()), ..config }, missing)
                .map_err(|error| error.to_string())
        };
        assert_eq!(strict(Config::default(), &[]), Ok(()));
        let error = strict(Config::default(), &[Wall::Ports, Wall::Calls]).unwrap_err();
        assert!(error.contains("TCP ports") && error.contains("seccomp"), "{error}");
        assert!(strict(Config { dev: true, ..Config::default() }, &[]).unwrap_err().contains("development mode"));
    }
}

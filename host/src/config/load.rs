//! Layer upon layer: defaults, `wasgi.toml`, environment, flags → [`Config`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::bind::{self, Place, Scheme};
use super::field::{self, BUDGET, EDGE, Field, LIMITS};
use super::file::{File, Given, Item, Source};
use super::places::{self, real_path};
use super::tenant::Named;
use super::{
    AccessLogFormat, AccessLogTarget, CHUNKED_BODIES, CONFINE, Certificate, Config, ConfigError, Grants, INSTANCES,
    KEEP_CAPSULES, LOG_FORMATS, PASSES, Policy, RedisUrl, Settings, StoreBackend, TrustedPeers, apply_table, tenant,
    top,
};

pub(super) const FILE_NAME: &str = "wasgi.toml";
/// Where the tenants' files are, beside it.
const TENANTS_DIR: &str = "tenants.d";
const ACCESS_LOG_FORMATS: &[(&str, AccessLogFormat)] =
    &[("combined", AccessLogFormat::Combined), ("json", AccessLogFormat::Json)];

pub(super) fn load(settings: &Settings) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let mut policy = config.instances.policy();
    let source = source(settings)?;
    let file: Option<File> = source.as_ref().map(Source::parse).transpose()?;
    let file = source.as_ref().zip(file.as_ref());
    if let Some((source, file)) = file {
        apply_file(source, file, &mut config, &mut policy)?;
    }
    apply_settings(settings, &mut config, &mut policy)?;
    if settings.bind.is_empty() && file.is_none_or(|(_, file)| file.bind.is_none()) {
        bind_as_told_by_the_environment(settings, &mut config)?;
    }
    config.instances = config.policy(policy);
    // The last: their limits are those of all layers where nothing else is said.
    let (tenants_dir, named) = tenants_dir(settings, file)?;
    config.tenants = tenant::load(&config, file.map(|(source, file)| (source, &file.tenant)), &tenants_dir, named)?;
    check_together(&config, settings, &tenants_dir)?;
    Ok(config)
}

fn source(settings: &Settings) -> Result<Option<Source>, ConfigError> {
    match &settings.file {
        Some(path) => Source::read(path).map(Some),
        None => Path::new(FILE_NAME).exists().then(|| Source::read(Path::new(FILE_NAME))).transpose(),
    }
}

/// The folder with the tenants' files, whatever else the settings say.
pub(super) fn tenants_dir_of(settings: &Settings) -> Result<PathBuf, ConfigError> {
    let source = source(settings)?;
    let file: Option<File> = source.as_ref().map(Source::parse).transpose()?;
    tenants_dir(settings, source.as_ref().zip(file.as_ref())).map(|(folder, _)| folder)
}

/// The folder with the tenants' files, and who says so.
fn tenants_dir(settings: &Settings, file: Option<(&Source, &File)>) -> Result<(PathBuf, Named), ConfigError> {
    if let Some(path) = &settings.tenants_dir {
        return Ok((path.clone(), Named::ByOperator));
    }
    let Some((source, file)) = file else { return Ok((PathBuf::from(TENANTS_DIR), Named::ByDefault)) };
    Ok(match &file.tenants_dir {
        Some(item) => (source.folder().join(path(&source.given("tenants_dir", item))?), Named::ByOperator),
        None => (source.folder().join(TENANTS_DIR), Named::ByDefault),
    })
}

fn apply_file(source: &Source, file: &File, config: &mut Config, policy: &mut Policy) -> Result<(), ConfigError> {
    let numbers: [(&str, &Item); 14] = [
        ("workers", &file.workers),
        ("sandboxes", &file.sandboxes),
        ("sandbox_memory", &file.sandbox_memory),
        ("stack", &file.stack),
        ("app_idle_time", &file.app_idle_time),
        ("rescan_time", &file.rescan_time),
        ("settle_time", &file.settle_time),
        ("reuse_requests", &file.reuse_requests),
        ("reuse_idle_time", &file.reuse_idle_time),
        ("reuse_memory", &file.reuse_memory),
        ("capsules_count", &file.capsules_count),
        ("capsules_size", &file.capsules_size),
        ("capsules_body_size", &file.capsules_body_size),
        ("capsules_module_size", &file.capsules_module_size),
    ];
    for (key, item) in numbers {
        if let Some(item) = item {
            assign(top(key), &source.given(key, item), config)?;
        }
    }
    let folder = source.folder();
    if let Some(given) = source.if_given("apps_dir", &file.apps_dir) {
        config.apps_dir = folder.join(path(&given)?);
    }
    if let Some(given) = source.if_given("state_dir", &file.state_dir) {
        config.state_dir = folder.join(path(&given)?);
    }
    if let Some(given) = source.if_given("data_dir", &file.data_dir) {
        config.data_dir = folder.join(path(&given)?);
    }
    let section = source.section(String::new());
    config.grants = Grants::parse(&file.grant, &section, &Grants::default())?;
    config.grants.refuse_folders(&file.grant, &section)?;
    if let Some(given) = source.if_given("outbound_cafile", &file.outbound_cafile) {
        config.outbound_cafile = Some(folder.join(path(&given)?));
    }
    if let Some(given) = source.if_given("keyvalue_redis", &file.keyvalue_redis) {
        config.keyvalue_redis = Some(RedisUrl::parse(&given)?);
    }
    if let Some(given) = source.if_given("bind", &file.bind) {
        config.bind = bind::parse_all(&given, given.texts()?, folder)?;
    }
    if let Some(given) = source.if_given("forwarded_allow_ips", &file.forwarded_allow_ips) {
        config.forwarded_allow_ips = TrustedPeers::parse(&given, given.texts()?)?;
    }
    let certfile = source.if_given("certfile", &file.certfile).map(|given| path(&given)).transpose()?;
    let keyfile = source.if_given("keyfile", &file.keyfile).map(|given| path(&given)).transpose()?;
    let of_folder = |path: PathBuf| folder.join(path);
    apply_certificate(certfile.map(of_folder), keyfile.map(of_folder), config)?;
    if let Some(given) = source.if_given("dev", &file.dev) {
        config.dev = given.truth()?;
    }
    if let Some(given) = source.if_given("confine", &file.confine) {
        config.confine = given.word(CONFINE)?;
    }
    if let Some(given) = source.if_given("confine_paths", &file.confine_paths) {
        config.confine_paths = paths(&given, given.texts()?)?.into_iter().map(|path| folder.join(path)).collect();
    }
    if let Some(given) = source.if_given("user", &file.user) {
        config.user = Some(name(&given)?);
    }
    if let Some(given) = source.if_given("group", &file.group) {
        config.group = Some(name(&given)?);
    }
    if let Some(given) = source.if_given("instances", &file.instances) {
        *policy = given.word(INSTANCES)?;
    }
    if let Some(given) = source.if_given("chunked_bodies", &file.chunked_bodies) {
        config.chunked_bodies = given.word(CHUNKED_BODIES)?;
    }
    if let Some(given) = source.if_given("passes", &file.passes) {
        config.passes = given.word(PASSES)?;
    }
    if let Some(given) = source.if_given("capsules", &file.capsules) {
        config.capsules = given.word(KEEP_CAPSULES)?;
    }
    if let Some(given) = source.if_given("log.filter", &file.log.filter) {
        config.log.filter = filter(&given)?;
    }
    if let Some(given) = source.if_given("log.format", &file.log.format) {
        config.log.json = given.word(LOG_FORMATS)?;
    }
    if let Some(given) = source.if_given("access_log.file", &file.access_log.file) {
        config.access_log = access_log(&given, folder)?;
    }
    if let Some(given) = source.if_given("access_log.format", &file.access_log.format) {
        config.access_log_format = given.word(ACCESS_LOG_FORMATS)?;
    }
    apply_table(LIMITS, "limits", &section, &file.limits, &mut config.limits, |_, _, _| Ok(()))?;
    apply_table(BUDGET, "budget", &section, &file.budget, &mut config.budget, |_, _, _| Ok(()))?;
    apply_table(EDGE, "edge", &section, &file.edge, &mut config.edge, |_, _, _| Ok(()))
}

fn apply_settings(settings: &Settings, config: &mut Config, policy: &mut Policy) -> Result<(), ConfigError> {
    let numbers: [(&str, &str, &Option<String>); 14] = [
        ("workers", "--workers (WASGI_WORKERS)", &settings.workers),
        ("sandboxes", "--sandboxes (WASGI_SANDBOXES)", &settings.sandboxes),
        ("sandbox_memory", "--sandbox-memory (WASGI_SANDBOX_MEMORY)", &settings.sandbox_memory),
        ("stack", "--stack (WASGI_STACK)", &settings.stack),
        ("app_idle_time", "--app-idle-time (WASGI_APP_IDLE_TIME)", &settings.app_idle_time),
        ("rescan_time", "--rescan-time (WASGI_RESCAN_TIME)", &settings.rescan_time),
        ("settle_time", "--settle-time (WASGI_SETTLE_TIME)", &settings.settle_time),
        ("reuse_requests", "--reuse-requests (WASGI_REUSE_REQUESTS)", &settings.reuse_requests),
        ("reuse_idle_time", "--reuse-idle-time (WASGI_REUSE_IDLE_TIME)", &settings.reuse_idle_time),
        ("reuse_memory", "--reuse-memory (WASGI_REUSE_MEMORY)", &settings.reuse_memory),
        ("capsules_count", "--capsules-count (WASGI_CAPSULES_COUNT)", &settings.capsules_count),
        ("capsules_size", "--capsules-size (WASGI_CAPSULES_SIZE)", &settings.capsules_size),
        ("capsules_body_size", "--capsules-body-size (WASGI_CAPSULES_BODY_SIZE)", &settings.capsules_body_size),
        ("capsules_module_size", "--capsules-module-size (WASGI_CAPSULES_MODULE_SIZE)", &settings.capsules_module_size),
    ];
    for (key, place, text) in numbers {
        if let Some(text) = text {
            assign(top(key), &Given::flag(place, text), config)?;
        }
    }
    if let Some(path) = &settings.apps_dir {
        config.apps_dir = path.clone();
    }
    if let Some(path) = &settings.state_dir {
        config.state_dir = path.clone();
    }
    if let Some(path) = &settings.data_dir {
        config.data_dir = path.clone();
    }
    if let Some(path) = &settings.outbound_cafile {
        config.outbound_cafile = Some(path.clone());
    }
    if !settings.bind.is_empty() {
        let place = "--bind (WASGI_BIND)";
        let given = Given::flag(place, &settings.bind.join(","));
        config.bind = bind::parse_all(&given, settings.bind.iter().map(String::as_str), Path::new(""))?;
    }
    apply_certificate(settings.certfile.clone(), settings.keyfile.clone(), config)?;
    let allowed: Vec<_> =
        settings.forwarded_allow_ips.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    if !allowed.is_empty() {
        let place = "--forwarded-allow-ips (WASGI_FORWARDED_ALLOW_IPS)";
        config.forwarded_allow_ips = TrustedPeers::parse(&Given::flag(place, &allowed.join(",")), allowed)?;
    }
    config.dev |= settings.dev;
    if let Some(text) = &settings.confine {
        config.confine = Given::flag("--confine (WASGI_CONFINE)", text).word(CONFINE)?;
    }
    if !settings.confine_paths.is_empty() {
        let given = Given::flag("--confine-paths (WASGI_CONFINE_PATHS)", &settings.confine_paths.join(","));
        config.confine_paths = paths(&given, settings.confine_paths.iter().map(String::as_str))?;
    }
    if let Some(text) = &settings.user {
        config.user = Some(name(&Given::flag("--user (WASGI_USER)", text))?);
    }
    if let Some(text) = &settings.group {
        config.group = Some(name(&Given::flag("--group (WASGI_GROUP)", text))?);
    }
    if let Some(text) = &settings.instances {
        *policy = Given::flag("--instances (WASGI_INSTANCES)", text).word(INSTANCES)?;
    }
    if let Some(text) = &settings.chunked_bodies {
        let given = Given::flag("--chunked-bodies (WASGI_CHUNKED_BODIES)", text);
        config.chunked_bodies = given.word(CHUNKED_BODIES)?;
    }
    if let Some(text) = &settings.passes {
        config.passes = Given::flag("--passes (WASGI_PASSES)", text).word(PASSES)?;
    }
    if let Some(text) = &settings.capsules {
        config.capsules = Given::flag("--capsules (WASGI_CAPSULES)", text).word(KEEP_CAPSULES)?;
    }
    if let Some(text) = &settings.log_filter {
        config.log.filter = filter(&Given::flag("--log-filter (WASGI_LOG_FILTER)", text))?;
    }
    if let Some(text) = &settings.log_format {
        config.log.json = Given::flag("--log-format (WASGI_LOG_FORMAT)", text).word(LOG_FORMATS)?;
    }
    if let Some(text) = &settings.access_log_file {
        config.access_log = access_log(&Given::flag("--access-log-file (WASGI_ACCESS_LOG_FILE)", text), Path::new(""))?;
    }
    if let Some(text) = &settings.access_log_format {
        let given = Given::flag("--access-log-format (WASGI_ACCESS_LOG_FORMAT)", text);
        config.access_log_format = given.word(ACCESS_LOG_FORMATS)?;
    }
    apply_pairs(LIMITS, "WASGI_LIMITS", settings.environment.limits.iter(), &mut config.limits)?;
    apply_pairs(LIMITS, "--limit", settings.limits.iter(), &mut config.limits)?;
    apply_pairs(EDGE, "WASGI_EDGE", settings.environment.edge.iter(), &mut config.edge)?;
    apply_pairs(EDGE, "--edge", settings.edge.iter(), &mut config.edge)
}

/// What the environment says where neither file nor flags name an address.
fn bind_as_told_by_the_environment(settings: &Settings, config: &mut Config) -> Result<(), ConfigError> {
    let environment = &settings.environment;
    let (fds, pid) = (environment.listen_fds.as_deref(), environment.listen_pid.as_deref());
    let activated = bind::activated(fds, pid, std::process::id())?;
    if !activated.is_empty() {
        config.bind = activated;
    } else if let Some(port) = &environment.port {
        let given = Given::flag("the environment variable PORT", port);
        let port = port.parse().map_err(|_| given.refuse("a port is wanted, 0 to 65535"))?;
        config.bind = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()];
    }
    Ok(())
}

/// A layer's certificate replaces that of the layers below, with its key: they belong together.
fn apply_certificate(
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    match (certfile, keyfile) {
        (None, None) => {}
        (Some(certfile), keyfile) => {
            let keyfile = keyfile.unwrap_or_else(|| certfile.clone());
            config.certificate = Some(Certificate { certfile, keyfile });
        }
        (None, Some(keyfile)) => {
            let reason = "a key is of no use without a certificate: give certfile beside it";
            return Err(ConfigError::new(format!("keyfile {}", keyfile.display()), reason));
        }
    }
    Ok(())
}

fn assign<T>(field: &Field<T>, given: &Given<'_>, of: &mut T) -> Result<(), ConfigError> {
    field.assign(of, &given.value).map_err(|reason| given.refuse(reason))
}

/// `cpu_time=2s,memory=64MiB`.
fn apply_pairs<'s, T>(
    fields: &[Field<T>],
    place: &str,
    texts: impl Iterator<Item = &'s String>,
    of: &mut T,
) -> Result<(), ConfigError> {
    for pair in texts.flat_map(|text| text.split(',')) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Given::flag(place, pair).refuse("KEY=VALUE is wanted, such as \"cpu_time=2s\""));
        };
        let (key, value) = (key.trim(), value.trim());
        let Some(field) = fields.iter().find(|field| field.key == key) else {
            return Err(Given::flag(place, pair).refuse(format!("there is no \"{key}\", but {}", field::keys(fields))));
        };
        let mut given = Given::flag(place, value);
        given.key = key.to_owned();
        assign(field, &given, of)?;
    }
    Ok(())
}

fn path(given: &Given<'_>) -> Result<PathBuf, ConfigError> {
    match given.text()? {
        "" => Err(given.refuse("a path is wanted")),
        path => Ok(PathBuf::from(path)),
    }
}

/// Some folders.
fn paths<'a>(given: &Given<'_>, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<PathBuf>, ConfigError> {
    let path = |text: &str| match text {
        "" => Err(given.refuse("paths are wanted")),
        path => Ok(PathBuf::from(path)),
    };
    texts.into_iter().map(path).collect()
}

/// A user's or a group's.
fn name(given: &Given<'_>) -> Result<String, ConfigError> {
    match given.text()? {
        "" => Err(given.refuse("a name or a number is wanted")),
        name => Ok(name.to_owned()),
    }
}

fn filter(given: &Given<'_>) -> Result<String, ConfigError> {
    let text = given.text()?;
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(given.refuse("a level (error, warn, info, debug, trace) is wanted, or levels by module")),
    }
}

fn access_log(given: &Given<'_>, folder: &Path) -> Result<Option<AccessLogTarget>, ConfigError> {
    match given.text()? {
        "" => Err(given.refuse("a file is wanted, or \"-\" for stdout, or \"off\"")),
        "off" => Ok(None),
        "-" => Ok(Some(AccessLogTarget::Stdout)),
        path => Ok(Some(AccessLogTarget::File(folder.join(path)))),
    }
}

/// What `sockaddr_un` holds, less its NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// What is right alone and wrong together.
fn check_together(config: &Config, settings: &Settings, tenants_dir: &Path) -> Result<(), ConfigError> {
    let edge = &config.edge;
    if edge.request_target_bytes > edge.request_head_bytes {
        let reason = "is larger than edge.request_head_size, of which it is a part";
        return Err(ConfigError::new("edge.request_target_size", reason));
    }
    for bind in &config.bind {
        let refuse = |reason| Err(ConfigError::new(format!("bind {bind}"), reason));
        if config.dev && !bind.is_local() {
            return refuse(
                "development mode shows the insides of apps, and so listens on 127.0.0.1, [::1] or a Unix socket only",
            );
        }
        if bind.scheme == Some(Scheme::Https) && config.certificate.is_none() {
            return refuse("HTTPS needs a certificate: give certfile");
        }
        if bind.proxied && config.forwarded_allow_ips.is_empty() {
            return refuse("nobody is allowed to speak the PROXY protocol: name its peers in forwarded_allow_ips");
        }
        if let Place::Unix(path) = &bind.place
            && path.as_os_str().len() > UNIX_PATH_BYTES_MAX
        {
            return refuse("the path of a Unix socket has at most 107 bytes");
        }
    }
    let (apps, state) = (real_path(&config.apps_dir)?, real_path(&config.state_dir)?);
    if real_path(tenants_dir)?.starts_with(&apps) {
        return Err(ConfigError::new(
            format!("tenants_dir {}", tenants_dir.display()),
            format!("it lies inside the apps directory {}, whose writers it judges", config.apps_dir.display()),
        ));
    }
    check_stores(config)?;
    places::check_directories(config, &apps, &state)?;
    if state.starts_with(&apps) {
        return Err(ConfigError::new(
            format!("state_dir {}", config.state_dir.display()),
            format!(
                "it lies inside the apps directory {}, whose writers could replace compiled code; give --state-dir another place",
                config.apps_dir.display()
            ),
        ));
    }
    if apps.starts_with(&state) {
        return Err(ConfigError::new(
            format!("apps_dir {}", config.apps_dir.display()),
            format!("it lies inside the state directory {}, which is the host's alone", config.state_dir.display()),
        ));
    }
    places::check_files(config, settings, tenants_dir)
}

/// Who is granted a store in Redis needs one.
fn check_stores(config: &Config) -> Result<(), ConfigError> {
    let mut all = std::iter::once(&config.grants).chain(config.tenants.values().map(|tenant| &tenant.grants));
    let in_redis = all.find_map(|grants| {
        let mut stores = grants.keyvalue.iter();
        stores.find(|(_, store)| store.backend == StoreBackend::Redis).map(|(name, _)| name)
    });
    match in_redis {
        Some(name) if config.keyvalue_redis.is_none() => Err(ConfigError::new(
            format!("grant.keyvalue.\"{name}\": backend = \"redis\""),
            "it is not said where that is: write keyvalue_redis = \"redis://…\"",
        )),
        _ => Ok(()),
    }
}

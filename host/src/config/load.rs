//! Layer upon layer: defaults, `wasgi.toml`, environment, flags → [`Config`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use super::field::{self, EDGE, Field, LIMITS};
use super::file::{File, Given, Item, Source};
use super::{
    AccessLogFormat, AccessLogTarget, CHUNKED_BODIES, Config, ConfigError, INSTANCES, Instances, LOG_FORMATS, Settings,
    apply_table, top,
};

const FILE_NAME: &str = "wasgi.toml";
const ACCESS_LOG_FORMATS: &[(&str, AccessLogFormat)] =
    &[("combined", AccessLogFormat::Combined), ("json", AccessLogFormat::Json)];

const BIND_MAX: usize = 64;

pub(super) fn load(settings: &Settings) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let mut reuses = matches!(config.instances, Instances::Reuse { .. });
    let source = match &settings.file {
        Some(path) => Some(Source::read(path)?),
        None => Path::new(FILE_NAME).exists().then(|| Source::read(Path::new(FILE_NAME))).transpose()?,
    };
    let mut bound = false;
    if let Some(source) = &source {
        let file: File = source.parse()?;
        bound = file.bind.is_some();
        apply_file(source, &file, &mut config, &mut reuses)?;
    }
    apply_settings(settings, &mut config, &mut reuses)?;
    if settings.bind.is_empty()
        && !bound
        && let Some(port) = &settings.environment.port
    {
        let given = Given::flag("the environment variable PORT", port);
        let port = port.parse().map_err(|_| given.refuse("a port is wanted, 0 to 65535"))?;
        config.bind = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    }
    config.instances = if reuses { config.reuse() } else { Instances::Fresh };
    check_together(&config)?;
    Ok(config)
}

fn apply_file(source: &Source, file: &File, config: &mut Config, reuses: &mut bool) -> Result<(), ConfigError> {
    let numbers: [(&str, &Item); 7] = [
        ("workers", &file.workers),
        ("sandboxes", &file.sandboxes),
        ("stack", &file.stack),
        ("rescan_time", &file.rescan_time),
        ("settle_time", &file.settle_time),
        ("reuse_requests", &file.reuse_requests),
        ("reuse_idle_time", &file.reuse_idle_time),
    ];
    for (key, item) in numbers {
        if let Some(item) = item {
            assign(top(key), &source.given(key, item), config)?;
        }
    }
    let given = |key: &str, item: &'_ Item| {
        item.as_ref().map(|item| {
            let Given { place, key, value } = source.given(key, item);
            Given { place, key, value: std::borrow::Cow::Owned(value.into_owned()) }
        })
    };
    let folder = source.folder();
    if let Some(given) = given("apps_dir", &file.apps_dir) {
        config.apps_dir = folder.join(path(&given)?);
    }
    if let Some(given) = given("state_dir", &file.state_dir) {
        config.state_dir = folder.join(path(&given)?);
    }
    if let Some(given) = given("bind", &file.bind) {
        config.bind = addresses(&given)?;
    }
    if let Some(given) = given("instances", &file.instances) {
        *reuses = given.word(INSTANCES)?;
    }
    if let Some(given) = given("chunked_bodies", &file.chunked_bodies) {
        config.chunked_bodies = given.word(CHUNKED_BODIES)?;
    }
    if let Some(given) = given("log.filter", &file.log.filter) {
        config.log.filter = filter(&given)?;
    }
    if let Some(given) = given("log.format", &file.log.format) {
        config.log.json = given.word(LOG_FORMATS)?;
    }
    if let Some(given) = given("access_log.file", &file.access_log.file) {
        config.access_log = access_log(&given, folder)?;
    }
    if let Some(given) = given("access_log.format", &file.access_log.format) {
        config.access_log_format = given.word(ACCESS_LOG_FORMATS)?;
    }
    apply_table(LIMITS, "limits", source, &file.limits, &mut config.limits, |_, _, _| Ok(()))?;
    apply_table(EDGE, "edge", source, &file.edge, &mut config.edge, |_, _, _| Ok(()))
}

fn apply_settings(settings: &Settings, config: &mut Config, reuses: &mut bool) -> Result<(), ConfigError> {
    let numbers: [(&str, &str, &Option<String>); 7] = [
        ("workers", "--workers (WASGI_WORKERS)", &settings.workers),
        ("sandboxes", "--sandboxes (WASGI_SANDBOXES)", &settings.sandboxes),
        ("stack", "--stack (WASGI_STACK)", &settings.stack),
        ("rescan_time", "--rescan-time (WASGI_RESCAN_TIME)", &settings.rescan_time),
        ("settle_time", "--settle-time (WASGI_SETTLE_TIME)", &settings.settle_time),
        ("reuse_requests", "--reuse-requests (WASGI_REUSE_REQUESTS)", &settings.reuse_requests),
        ("reuse_idle_time", "--reuse-idle-time (WASGI_REUSE_IDLE_TIME)", &settings.reuse_idle_time),
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
    if !settings.bind.is_empty() {
        let place = "--bind (WASGI_BIND)";
        config.bind =
            settings.bind.iter().map(|text| address(&Given::flag(place, text), text)).collect::<Result<_, _>>()?;
    }
    if let Some(text) = &settings.instances {
        *reuses = Given::flag("--instances (WASGI_INSTANCES)", text).word(INSTANCES)?;
    }
    if let Some(text) = &settings.chunked_bodies {
        let given = Given::flag("--chunked-bodies (WASGI_CHUNKED_BODIES)", text);
        config.chunked_bodies = given.word(CHUNKED_BODIES)?;
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

fn addresses(given: &Given<'_>) -> Result<Vec<SocketAddr>, ConfigError> {
    let texts = given.texts()?;
    if texts.is_empty() || texts.len() > BIND_MAX {
        return Err(given.refuse(format!("1 to {BIND_MAX} addresses are allowed")));
    }
    texts.into_iter().map(|text| address(given, text)).collect()
}

/// `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, `8000`.
fn address(given: &Given<'_>, text: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.trim();
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => given.refuse(format!("the port is missing: \"{}\"", SocketAddr::new(address, 8000))),
        Err(_) => given.refuse("an address is wanted, such as \"127.0.0.1:8000\", \"[::1]:8000\" or \"8000\""),
    })
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

/// What is right alone and wrong together.
fn check_together(config: &Config) -> Result<(), ConfigError> {
    let edge = &config.edge;
    if edge.request_target_bytes > edge.request_head_bytes {
        let reason = "is larger than edge.request_head_size, of which it is a part";
        return Err(ConfigError::new("edge.request_target_size", reason));
    }
    let (apps, state) = (real_path(&config.apps_dir)?, real_path(&config.state_dir)?);
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
    Ok(())
}

/// The path without links and dots. Of what does not exist yet only the dots can be seen.
fn real_path(path: &Path) -> Result<PathBuf, ConfigError> {
    let refused = |error: std::io::Error| ConfigError::new(path.display().to_string(), error.to_string());
    let absolute = std::path::absolute(path).map_err(refused)?;
    for ancestor in absolute.ancestors() {
        let Ok(mut real) = ancestor.canonicalize() else {
            continue;
        };
        for component in absolute.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
            match component {
                Component::ParentDir => _ = real.pop(),
                component => real.push(component),
            }
        }
        return Ok(real);
    }
    Ok(absolute)
}

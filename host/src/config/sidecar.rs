//! An app's sidecar (`hello.toml` beside `hello.wasm`) → [`AppSpec`]: routes, environment variables, instances, static files, data,
//! destinations, lower limits.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Value;

use super::field::{self, LIMITS};
use super::file::{FILE_BYTES_MAX, Given, Item, Items, Source};
use super::{
    AppSpec, AssetSpec, Config, ConfigError, Destinations, HostPattern, Instances, Policy, RouteSpec, apply_table,
};
use crate::bundle::Manifest;
use crate::limits::Limits;

/// The keys of a sidecar.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sidecar {
    routes: Item,
    env: Items,
    instances: Item,
    chunked_bodies: Item,
    reuse_requests: Item,
    reuse_idle_time: Item,
    reuse_memory: Item,
    data: Item,
    outbound: Item,
    #[serde(rename = "static")]
    assets: Items,
    limits: Items,
}

const ROUTES_MAX: usize = 100;
const ASSETS_MAX: usize = 100;
const ROUTE_BYTES_MAX: usize = 1024;

/// The variables go into every request's environ, so they have a bound too: names and values together.
const ENV_BYTES_MAX: usize = 32 << 10;

/// What CGI (RFC 3875 §4.1) and wasgi put into environ. An app that set one of them would deceive itself.
const ENV_RESERVED: &[&str] = &[
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
];
const ENV_RESERVED_PREFIXES: &[&str] = &["HTTP_", "REMOTE_", "SERVER_", "wsgi.", "wasgi."];

pub(super) fn app_limits(config: &Config, text: Option<&str>) -> Result<Limits, ConfigError> {
    let (source, sidecar) = parse(text)?;
    limits(config, &source, &sidecar)
}

pub(super) fn app_spec(
    config: &Config,
    name: &str,
    text: Option<&str>,
    manifest: &Manifest,
) -> Result<AppSpec, ConfigError> {
    let (source, sidecar) = parse(text)?;
    let routes = match &sidecar.routes {
        Some(item) => routes(&source.given("routes", item))?,
        None => vec![default_route(name)?],
    };
    Ok(AppSpec {
        name: name.to_owned(),
        routes,
        env: env(&source, &sidecar.env)?,
        instances: instances(config, &source, &sidecar, manifest)?,
        chunked_bodies: match &sidecar.chunked_bodies {
            Some(item) => source.given("chunked_bodies", item).word(super::CHUNKED_BODIES)?,
            None => config.chunked_bodies,
        },
        spool_dir: config.state_dir.clone(),
        instances_chosen: sidecar.instances.is_some(),
        assets: assets(&source, &sidecar.assets, manifest)?,
        data: data(config, name, &source, &sidecar, manifest)?,
        outbound: outbound(config, name, &source, &sidecar)?,
        limits: limits(config, &source, &sidecar)?,
    })
}

fn parse(text: Option<&str>) -> Result<(Source, Sidecar), ConfigError> {
    let text = text.unwrap_or_default();
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::new("sidecar", format!("{} bytes: at most {FILE_BYTES_MAX} are allowed", text.len())));
    }
    let source = Source::sidecar(text);
    let sidecar = source.parse()?;
    Ok((source, sidecar))
}

/// What the host serves from the bundle: the manifest's, with the sidecar's on top. `false` takes one of the manifest's away.
fn assets(source: &Source, items: &Items, manifest: &Manifest) -> Result<Vec<AssetSpec>, ConfigError> {
    let mut assets = BTreeMap::new();
    for (path, target) in &manifest.assets {
        let refused = |reason| ConfigError::new("manifest", format!("static \"{}\": {reason}", path.escape_debug()));
        assets.insert(asset_prefix(path).map_err(refused)?, asset_target(target).map_err(refused)?);
    }
    for (path, item) in items {
        let given = source.given(&format!("static.\"{}\"", path.as_ref().escape_debug()), item);
        let prefix = asset_prefix(path.as_ref()).map_err(|reason| given.refuse(reason))?;
        match given.value.as_ref() {
            Value::Boolean(false) => _ = assets.remove(&prefix),
            _ => _ = assets.insert(prefix, asset_target(given.text()?).map_err(|reason| given.refuse(reason))?),
        }
    }
    if assets.len() > ASSETS_MAX {
        return Err(ConfigError::new("static", format!("at most {ASSETS_MAX} entries are allowed")));
    }
    Ok(assets.into_iter().map(|(prefix, target)| AssetSpec { prefix, target }).collect())
}

fn asset_prefix(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.len() > ROUTE_BYTES_MAX {
        return Err("a path below the app's own is wanted, such as \"/static/\"".to_owned());
    }
    prefix(path)
}

fn asset_target(target: &str) -> Result<String, String> {
    let inner = target.strip_suffix('/').unwrap_or(target);
    let is_inner = inner.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    match is_inner {
        true => Ok(inner.to_owned()),
        false => Err("a folder or file of the app's bundle is wanted, such as \"static\"".to_owned()),
    }
}

/// The directory of the app's data, if it asks for one: what the operator does not grant refuses the app.
fn data(
    config: &Config,
    name: &str,
    source: &Source,
    sidecar: &Sidecar,
    manifest: &Manifest,
) -> Result<Option<PathBuf>, ConfigError> {
    let given = sidecar.data.as_ref().map(|item| source.given("data", item));
    if !given.as_ref().map_or(Ok(manifest.data), Given::truth)? {
        return Ok(None);
    }
    let refused = |reason: String| match &given {
        Some(given) => given.refuse(reason),
        None => ConfigError::new("manifest", format!("data = true: {reason}")),
    };
    if !config.grants.data.contain(name) {
        return Err(refused(format!(
            "the operator has not granted it: put \"{name}\" into `data` of [grant] in wasgi.toml"
        )));
    }
    super::grant::data_path(&config.data_dir, name).map(Some).map_err(refused)
}

/// Where the app asks to go: what the operator does not grant refuses it.
fn outbound(config: &Config, name: &str, source: &Source, sidecar: &Sidecar) -> Result<Destinations, ConfigError> {
    let Some(item) = &sidecar.outbound else { return Ok(Destinations::default()) };
    let given = source.given("outbound", item);
    let asked = Destinations::parse(&given)?;
    let granted = config.grants.outbound.of(name);
    let missing = asked.iter().find(|destination| !granted.cover(destination)).cloned();
    match missing {
        None => Ok(asked),
        Some(destination) => Err(given.refuse(format!(
            "the operator has not granted {destination}: put it into [grant.outbound] in wasgi.toml, as \"{name}\" = [\"{destination}\"]"
        ))),
    }
}

/// `hello` → `/hello`, `index` → the root, `shop/index` → `/shop`.
fn default_route(name: &str) -> Result<RouteSpec, ConfigError> {
    let path = format!("/{name}");
    let path = path.strip_suffix("/index").unwrap_or(&path);
    let prefix = prefix(path).map_err(|reason| {
        ConfigError::new(
            format!("app \"{}\"", name.escape_debug()),
            format!("{reason}: rename it, or give it routes in a sidecar"),
        )
    })?;
    Ok(RouteSpec { host: HostPattern::Any, prefix })
}

fn routes(given: &Given<'_>) -> Result<Vec<RouteSpec>, ConfigError> {
    let texts = given.texts()?;
    if texts.is_empty() {
        return Err(given.refuse("at least one route is wanted; without the key an app is served at its name"));
    }
    if texts.len() > ROUTES_MAX {
        return Err(given.refuse(format!("at most {ROUTES_MAX} routes are allowed")));
    }
    let mut routes = Vec::with_capacity(texts.len());
    for text in texts {
        let refused = |reason: String| {
            ConfigError::new(given.place.clone(), format!("route \"{}\": {reason}", text.escape_debug()))
        };
        let route = route(text).map_err(refused)?;
        if routes.contains(&route) {
            return Err(refused("it is there twice".to_owned()));
        }
        routes.push(route);
    }
    Ok(routes)
}

/// `/shop`, `example.com/shop`, `*.example.com`.
fn route(text: &str) -> Result<RouteSpec, String> {
    if text.len() > ROUTE_BYTES_MAX {
        return Err(format!("at most {ROUTE_BYTES_MAX} bytes are allowed"));
    }
    let (host, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        // "shop" is more often a path whose slash was forgotten than the host `shop`.
        None if !text.contains(['.', ':']) => {
            return Err(format!("a route begins with \"/\" or with a host: is \"/{text}\" meant, or \"{text}/\"?"));
        }
        None => (text, ""),
    };
    Ok(RouteSpec { host: host_pattern(host)?, prefix: prefix(path)? })
}

fn host_pattern(host: &str) -> Result<HostPattern, String> {
    if host.is_empty() {
        return Ok(HostPattern::Any);
    }
    let host = host.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(HostPattern::Exact(format!("[{address}]"))),
            Err(_) => Err(format!("\"{host}\" is no IPv6 address")),
        };
    }
    let (wildcard, name) = match host.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, host.as_str()),
    };
    if name.contains('*') {
        return Err("a wildcard stands only at the beginning, as \"*.\"".to_owned());
    }
    if name.contains(':') {
        return Err("a host stands without port".to_owned());
    }
    if !name.is_ascii() {
        return Err("a host name is written in ASCII (\"xn--…\")".to_owned());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(format!("\"{}\" is no host name", host.escape_debug()));
    }
    Ok(if wildcard { HostPattern::Suffix(format!(".{name}")) } else { HostPattern::Exact(host) })
}

/// The path of a route, checked, without the slash at its end.
fn prefix(path: &str) -> Result<String, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err("a path has no empty segments".to_owned()),
            "." | ".." => return Err(format!("a path has no \"{segment}\" segments")),
            _ => {}
        }
    }
    if let Some(character) = path.chars().find(|character| character.is_control() || "?#%\\".contains(*character)) {
        let hint = if character == '%' { "; write the path decoded" } else { "" };
        return Err(format!("a path has no '{}'{hint}", character.escape_debug()));
    }
    Ok(path.to_owned())
}

fn env(source: &Source, items: &Items) -> Result<Vec<(String, String)>, ConfigError> {
    let mut bytes = 0;
    let mut variables = Vec::with_capacity(items.len());
    for (name, item) in items {
        let name = name.as_ref();
        let given = source.given(&format!("env.{name}"), item);
        // The value may be a secret: it is in no message.
        let refused =
            |reason: String| ConfigError::new(given.place.clone(), format!("env.{}: {reason}", name.escape_debug()));
        env_name(name).map_err(refused)?;
        let Some(value) = given.value.as_str() else {
            return Err(refused("a text in quotes is wanted".to_owned()));
        };
        if value.contains('\0') {
            return Err(refused("a value has no NUL".to_owned()));
        }
        bytes += name.len() + value.len() + 2;
        if bytes > ENV_BYTES_MAX {
            return Err(refused(format!(
                "all variables together have at most {}",
                field::size_text(ENV_BYTES_MAX as u64)
            )));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

fn env_name(name: &str) -> Result<(), String> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err("a name has letters, digits, \"_\", \".\" and \"-\", and begins with a letter or \"_\"".to_owned());
    }
    // Some read variables without regard to case.
    if ENV_RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err("the server sets this variable".to_owned());
    }
    let begins_with = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    match ENV_RESERVED_PREFIXES.iter().find(|prefix| begins_with(prefix)) {
        Some(prefix) => Err(format!("the variables that begin with \"{prefix}\" are the server's")),
        None => Ok(()),
    }
}

fn instances(
    config: &Config,
    source: &Source,
    sidecar: &Sidecar,
    manifest: &Manifest,
) -> Result<Instances, ConfigError> {
    // The numbers are checked as the operator's are, and then against the operator's.
    let mut own = config.clone();
    let mut last = None;
    for (key, item) in [
        ("reuse_requests", &sidecar.reuse_requests),
        ("reuse_idle_time", &sidecar.reuse_idle_time),
        ("reuse_memory", &sidecar.reuse_memory),
    ] {
        let Some(item) = item else { continue };
        let given = source.given(key, item);
        let field = super::top(key);
        field.assign(&mut own, &given.value).map_err(|reason| given.refuse(reason))?;
        if field.exceeds(&own, config) {
            return Err(
                given.refuse(format!("more than the operator's {}; an app may only lower it", field.text(config)))
            );
        }
        last = Some(given);
    }
    let policy = match &sidecar.instances {
        Some(item) => source.given("instances", item).word(super::INSTANCES)?,
        None => match manifest.reuse {
            Some(true) => Policy::Reuse,
            Some(false) => Policy::Fresh,
            None => config.instances.policy(),
        },
    };
    match (policy, last) {
        (Policy::Fresh, Some(given)) => {
            Err(given.refuse("it says nothing without instances = \"reuse\" or \"rewind\""))
        }
        (policy, _) => Ok(own.policy(policy)),
    }
}

fn limits(config: &Config, source: &Source, sidecar: &Sidecar) -> Result<Limits, ConfigError> {
    let mut limits = config.limits.clone();
    apply_table(LIMITS, "limits", source, &sidecar.limits, &mut limits, |field, given, limits| {
        if field.exceeds(limits, &config.limits) {
            let ceiling = field.text(&config.limits);
            return Err(given.refuse(format!("more than the operator's {ceiling}; an app may only lower its limits")));
        }
        Ok(())
    })?;
    Ok(limits)
}

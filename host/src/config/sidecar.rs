//! An app's sidecar (`hello.toml` beside `hello.wasm`) → [`AppSpec`]: routes, environment variables, instances, static files, data,
//! destinations, key-value stores, lower limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Value;

use super::field::{self, LIMITS};
use super::file::{FILE_BYTES_MAX, Given, Item, Items, Section, Source};
use super::tenant::{name_within, tenant_name};
use super::{
    AppNames, AppSpec, AssetSpec, Config, ConfigError, Destinations, DirectorySpec, Instances, Policy, RouteSpec,
    SecretSource, Tenant, Want, apply_table, route,
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
    wall_clock: Item,
    randomness: Item,
    outbound: Item,
    secrets: Item,
    directories: Item,
    keyvalue: Item,
    #[serde(rename = "static")]
    assets: Items,
    limits: Items,
}

const ASSETS_MAX: usize = 100;

/// The variables go into every request's environ, so they have a bound too: names and values together.
pub(super) const ENV_BYTES_MAX: usize = 32 << 10;

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

pub(super) fn app_limits(config: &Config, name: &str, text: Option<&str>) -> Result<Limits, ConfigError> {
    let (source, sidecar) = parse(text)?;
    limits(&config.tenant_of(name), &source, &sidecar)
}

pub(super) fn app_spec(
    config: &Config,
    name: &str,
    text: Option<&str>,
    manifest: &Manifest,
) -> Result<AppSpec, ConfigError> {
    let (source, sidecar) = parse(text)?;
    let tenant = &*config.tenant_of(name);
    let asker = Asker { config, tenant, name, source: &source };
    let secrets = asker.secrets(&sidecar)?;
    let env = asker.env(&sidecar, &secrets)?;
    let is_granted = |name: &String| !sidecar.env.keys().any(|own| own.as_ref() == name);
    Ok(AppSpec {
        name: name.to_owned(),
        tenant: tenant.name.clone(),
        routes: asker.routes(&sidecar)?,
        env_granted: env.iter().map(|(name, _)| name.clone()).filter(is_granted).collect(),
        env,
        secrets,
        instances: instances(config, &source, &sidecar, manifest)?,
        chunked_bodies: match &sidecar.chunked_bodies {
            Some(item) => source.given("chunked_bodies", item).word(super::CHUNKED_BODIES)?,
            None => config.chunked_bodies,
        },
        spool_dir: config.state_dir.clone(),
        instances_chosen: sidecar.instances.is_some(),
        assets: assets(&source, &sidecar.assets, manifest)?,
        data: asker.data(&sidecar, manifest)?,
        wall_clock: asker.want("wall_clock", &sidecar.wall_clock, &tenant.grants.wall_clock)?,
        randomness: asker.want("randomness", &sidecar.randomness, &tenant.grants.randomness)?,
        directories: asker.directories(&sidecar)?,
        outbound: asker.outbound(&sidecar)?,
        keyvalue: asker.keyvalue(&sidecar)?,
        limits: limits(tenant, &source, &sidecar)?,
    })
}

/// An app that asks for what its tenant may have. What it is not granted refuses it, with the line that asks.
struct Asker<'a> {
    config: &'a Config,
    tenant: &'a Tenant,
    name: &'a str,
    source: &'a Source,
}

impl Asker<'_> {
    /// Its places. Who has one that it may not have is not said: that would tell tenants of each other.
    fn routes(&self, sidecar: &Sidecar) -> Result<Vec<RouteSpec>, ConfigError> {
        let refused = match self.tenant.name.as_str() {
            "" => "it was given to a tenant".to_owned(),
            name => {
                let places: Vec<_> = self.tenant.routes.iter().map(|route| format!("\"{route}\"")).collect();
                format!("the operator has not given it to {name}, which has {}", places.join(", "))
            }
        };
        let Some(item) = &sidecar.routes else {
            let place = || format!("app \"{}\"", self.name.escape_debug());
            let below = self.tenant.routes.first().map(|first| first.below(name_within(self.name)));
            let route = below.unwrap_or_else(|| Err("its tenant has no place".to_owned()));
            let route = route.map_err(|reason| {
                ConfigError::new(place(), format!("{reason}: rename it, or give it routes in a sidecar"))
            })?;
            return match self.config.gives(self.tenant, &route) {
                true => Ok(vec![route]),
                false => Err(ConfigError::new(place(), format!("its place is {route}, and {refused}"))),
            };
        };
        let given = self.source.given("routes", item);
        let none = "at least one route is wanted; without the key an app is served at its name";
        let routes = route::parse_all(&given, none)?;
        match routes.iter().find(|route| !self.config.gives(self.tenant, route)) {
            Some(route) => Err(route::refuse(&given, &route.to_string(), &refused)),
            None => Ok(routes),
        }
    }

    /// Its variables: its tenant's, with its own on top.
    fn env(&self, sidecar: &Sidecar, secrets: &[(String, SecretSource)]) -> Result<Vec<(String, String)>, ConfigError> {
        let section = self.source.section(String::new());
        let own = env(&section, "env", &sidecar.env)?;
        if let Some((name, item)) =
            sidecar.env.iter().find(|(name, _)| secrets.iter().any(|(secret, _)| secret == name.as_ref()))
        {
            let given = section.given(&format!("env.{}", name.as_ref()), item);
            return Err(given.refuse_key("it is asked for as a secret as well: remove one of them"));
        }
        let mut variables = self.tenant.grants.env.clone();
        variables.extend(own);
        // A secret of that name is what was asked for.
        variables.retain(|name, _| secrets.iter().all(|(secret, _)| secret != name));
        Ok(variables.into_iter().collect())
    }

    fn secrets(&self, sidecar: &Sidecar) -> Result<Vec<(String, SecretSource)>, ConfigError> {
        self.asked("secrets", &sidecar.secrets, |name| {
            let grant = self.tenant.grants.secrets.get(name)?;
            grant.apps.contain(name_within(self.name)).then(|| (name.to_owned(), grant.source.clone()))
        })
    }

    fn directories(&self, sidecar: &Sidecar) -> Result<Vec<DirectorySpec>, ConfigError> {
        self.asked("directories", &sidecar.directories, |place| {
            let grant = self.tenant.grants.directories.get(place)?;
            let limits = &self.tenant.limits;
            grant.apps.contain(name_within(self.name)).then(|| DirectorySpec {
                place: place.to_owned(),
                path: grant.path.clone(),
                access: grant.access,
                bytes_max: grant.bytes_max.unwrap_or(limits.data_bytes),
                names_max: grant.names_max.unwrap_or(limits.data_files),
            })
        })
    }

    /// The names of its stores.
    fn keyvalue(&self, sidecar: &Sidecar) -> Result<Vec<String>, ConfigError> {
        self.asked("keyvalue", &sidecar.keyvalue, |name| self.config.store_of(self.name, name).map(|_| name.to_owned()))
    }

    /// The grants that a list of names asks for.
    fn asked<T>(&self, key: &str, item: &Item, find: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ConfigError> {
        let Some(item) = item else { return Ok(Vec::new()) };
        let given = self.source.given(key, item);
        let mut names = given.texts()?;
        names.sort_unstable();
        names.dedup();
        let granted = names.into_iter().map(|name| {
            let table = self.grant_table();
            let name_text = name.escape_debug();
            find(name).ok_or_else(|| {
                given.refuse(match self.tenant.grants.out_of_reach.get(name) {
                    Some(path) => format!(
                        "\"{name_text}\" is granted, and {} is out of this host's reach until it is started again",
                        path.display()
                    ),
                    None => format!("the operator has not granted \"{name_text}\": it is to stand in [{table}.{key}]"),
                })
            })
        });
        granted.collect()
    }

    /// The directory of its data, if it asks for one.
    fn data(&self, sidecar: &Sidecar, manifest: &Manifest) -> Result<Option<PathBuf>, ConfigError> {
        let given = sidecar.data.as_ref().map(|item| self.source.given("data", item));
        if !given.as_ref().map_or(Ok(manifest.data), Given::truth)? {
            return Ok(None);
        }
        let refused = |reason: String| match &given {
            Some(given) => given.refuse(reason),
            None => ConfigError::new("manifest", format!("data = true: {reason}")),
        };
        let name = name_within(self.name);
        if !self.tenant.grants.data.contain(name) {
            let table = self.grant_table();
            return Err(refused(format!("the operator has not granted it: put \"{name}\" into `data` of [{table}]")));
        }
        super::grant::data_path(&self.config.data_dir, self.name).map(Some).map_err(refused)
    }

    /// Whether it is to have what all apps have that the operator does not keep it from.
    fn want(&self, key: &str, item: &Item, granted: &AppNames) -> Result<Want, ConfigError> {
        let Some(item) = item else { return Ok(Want::AsGranted) };
        let given = self.source.given(key, item);
        let (name, table) = (name_within(self.name), self.grant_table());
        match given.truth()? {
            false => Ok(Want::Declined),
            true if granted.contain(name) => Ok(Want::Needed),
            true => Err(given.refuse(format!(
                "the operator has not granted it: put \"{name}\" into `{key}` of [{table}], or leave this out"
            ))),
        }
    }

    /// Where it asks to go.
    fn outbound(&self, sidecar: &Sidecar) -> Result<Destinations, ConfigError> {
        let Some(item) = &sidecar.outbound else { return Ok(Destinations::default()) };
        let given = self.source.given("outbound", item);
        let asked = Destinations::parse(&given)?;
        let name = name_within(self.name);
        let granted = self.tenant.grants.outbound.of(name);
        let missing = asked.iter().find(|destination| !granted.cover(destination)).cloned();
        match missing {
            None => Ok(asked),
            Some(destination) => Err(given.refuse(format!(
                "the operator has not granted {destination}: put it into [{}.outbound], as \"{name}\" = [\"{destination}\"]",
                self.grant_table()
            ))),
        }
    }

    /// Where the operator grants what it asks for.
    fn grant_table(&self) -> String {
        match tenant_name(self.name) {
            "" => "grant".to_owned(),
            tenant => format!("tenant.{tenant}.grant"),
        }
    }
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
        assets.insert(route::path_below(path).map_err(refused)?, asset_target(target).map_err(refused)?);
    }
    for (path, item) in items {
        let given = source.given(&format!("static.\"{}\"", path.as_ref().escape_debug()), item);
        let prefix = route::path_below(path.as_ref()).map_err(|reason| given.refuse(reason))?;
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

fn asset_target(target: &str) -> Result<String, String> {
    let inner = target.strip_suffix('/').unwrap_or(target);
    let is_inner = inner.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    match is_inner {
        true => Ok(inner.to_owned()),
        false => Err("a folder or file of the app's bundle is wanted, such as \"static\"".to_owned()),
    }
}

/// A table of variables, checked.
pub(super) fn env(section: &Section<'_>, table: &str, items: &Items) -> Result<Vec<(String, String)>, ConfigError> {
    let mut bytes = 0;
    let mut variables = Vec::with_capacity(items.len());
    for (name, item) in items {
        let name = name.as_ref();
        let given = section.given(&format!("{table}.{}", name.escape_debug()), item);
        // The value may be a secret: it is in no message.
        let refused = |reason: String| given.refuse_key(reason);
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

pub(super) fn env_name(name: &str) -> Result<(), String> {
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

fn limits(tenant: &Tenant, source: &Source, sidecar: &Sidecar) -> Result<Limits, ConfigError> {
    let (mut limits, section) = (tenant.limits.clone(), source.section(String::new()));
    apply_table(LIMITS, "limits", &section, &sidecar.limits, &mut limits, |field, given, limits| {
        if field.exceeds(limits, &tenant.limits) {
            let ceiling = field.text(&tenant.limits);
            return Err(given.refuse(match field.is_least() {
                true => format!("less than the operator's {ceiling}; an app may only raise it"),
                false => format!("more than the operator's {ceiling}; an app may only lower its limits"),
            }));
        }
        Ok(())
    })?;
    Ok(limits)
}

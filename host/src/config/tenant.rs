//! Tenants: whose apps lie in which folder of the apps directory, and what the operator says they may have.
//!
//! A tenant is a folder at the top of the apps directory. One that the operator says nothing of has the places below
//! its name, the operator's limits, and no grants. Apps that lie in no folder are the operator's own: they may have
//! every place that no tenant was given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Section, Source, TenantTable};
use super::grant::is_name;
use super::{Config, ConfigError, Destinations, Grants, HostPattern, RouteSpec, StoreGrant, field, route};
use crate::limits::{Budget, Limits};

/// What the apps of one folder may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// The folder; "" for apps that lie in none.
    pub name: String,
    /// Places of its own: its apps may have them and all below them.
    pub routes: Vec<RouteSpec>,
    /// The ceiling, and the default, of each of its apps.
    pub limits: Limits,
    /// What they may use together.
    pub budget: Budget,
    pub grants: Grants,
}

/// Those that the operator speaks of, by name.
pub(super) type Tenants = BTreeMap<String, Tenant>;

const TENANTS_MAX: usize = 100_000;

/// The tenant that an app belongs to: the first folder of its name, or "".
pub fn tenant_name(app: &str) -> &str {
    app.split_once('/').map_or("", |(tenant, _)| tenant)
}

/// An app's name as its tenant knows it.
pub(super) fn name_within(app: &str) -> &str {
    app.split_once('/').map_or(app, |(_, name)| name)
}

impl Config {
    /// What the operator says of the tenant that has the app.
    pub fn tenant_of(&self, app: &str) -> Cow<'_, Tenant> {
        let name = tenant_name(app);
        if let Some(tenant) = self.tenants.get(name) {
            return Cow::Borrowed(tenant);
        }
        let routes = match name {
            "" => vec![RouteSpec { host: HostPattern::Any, prefix: String::new() }],
            name => vec![own_place(name)],
        };
        let grants = if name.is_empty() { self.grants.clone() } else { self.grants.of_others() };
        let (limits, budget) = (self.limits.clone(), self.budget.clone());
        Cow::Owned(Tenant { name: name.to_owned(), routes, limits, budget, grants })
    }

    /// Where the operator lets one app go.
    pub fn outbound_of(&self, app: &str) -> Destinations {
        self.tenant_of(app).grants.outbound.of(name_within(app))
    }

    /// The key-value store of this name, if the operator lets the app have it.
    pub fn store_of(&self, app: &str, store: &str) -> Option<&StoreGrant> {
        let grants = match (self.tenants.get(tenant_name(app)), tenant_name(app)) {
            (Some(tenant), _) => &tenant.grants,
            (None, "") => &self.grants,
            (None, _) => return None,
        };
        grants.keyvalue.get(store).filter(|grant| grant.apps.contain(name_within(app)))
    }

    /// Whether apps of the tenant may have this place. Of the tenants' places that hold it the innermost counts; what
    /// was said of one goes before what is the default of another.
    pub(super) fn gives(&self, tenant: &Tenant, route: &RouteSpec) -> bool {
        let innermost =
            |tenant: &Tenant| tenant.routes.iter().filter(|place| place.covers(route)).map(RouteSpec::precedence).max();
        let others = self.tenants.values().filter(|other| other.name != tenant.name).filter_map(innermost).max();
        match tenant.name.as_str() {
            "" => others.is_none(),
            // Two cannot have been given the same place.
            _ => innermost(tenant).is_some_and(|own| others.is_none_or(|other| other < own)),
        }
    }

    /// The places that were given to tenants, each with its tenant.
    pub fn given_places(&self) -> impl Iterator<Item = (&RouteSpec, &str)> {
        self.tenants.values().flat_map(|tenant| tenant.routes.iter().map(|route| (route, tenant.name.as_str())))
    }
}

/// `/acme`.
fn own_place(name: &str) -> RouteSpec {
    RouteSpec { host: HostPattern::Any, prefix: format!("/{name}") }
}

/// Those of `[tenant.NAME]` in the file, and of the files in `folder`.
pub(super) fn load(
    config: &Config,
    source: Option<(&Source, &BTreeMap<toml::Spanned<String>, TenantTable>)>,
    folder: &Path,
    named: Named,
) -> Result<Tenants, ConfigError> {
    let mut tenants = Tenants::new();
    if let Some((source, tables)) = source {
        for (name, table) in tables {
            let place = source.place(name.span().start);
            let section = source.section(format!("tenant.{}.", name.as_ref().escape_debug()));
            tenants.insert(name.as_ref().clone(), tenant(config, &place, name.as_ref(), table, &section)?);
        }
    }
    for path in files(folder, named)? {
        let place = path.display().to_string();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            return Err(ConfigError::new(place, "the name of the file is to be that of a tenant"));
        };
        if tenants.contains_key(name) {
            let reason = format!("there is a [tenant.{name}] in the settings file as well: remove one of them");
            return Err(ConfigError::new(place, reason));
        }
        let source = Source::read(&path)?;
        let table: TenantTable = source.parse()?;
        tenants.insert(name.to_owned(), tenant(config, &place, name, &table, &source.section(String::new()))?);
    }
    if tenants.len() > TENANTS_MAX {
        return Err(ConfigError::new("tenants", format!("there are at most {TENANTS_MAX}")));
    }
    check_places(&tenants)?;
    Ok(tenants)
}

/// Who says where the tenants' files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    ByOperator,
    ByDefault,
}

/// The files `NAME.toml` of a folder, which need not be there if nobody has named it: without the tenants' limits and places more is
/// allowed, not less.
fn files(folder: &Path, named: Named) -> Result<Vec<std::path::PathBuf>, ConfigError> {
    let refused = |error: std::io::Error| {
        ConfigError::new(folder.display().to_string(), format!("the tenants' files cannot be read: {error}"))
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named == Named::ByDefault => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(refused(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(refused)?.path();
        if paths.len() > TENANTS_MAX {
            break;
        }
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn tenant(
    config: &Config,
    place: &str,
    name: &str,
    table: &TenantTable,
    section: &Section<'_>,
) -> Result<Tenant, ConfigError> {
    if !is_name(name) || name.contains('/') {
        let name = name.escape_debug();
        return Err(ConfigError::new(
            place,
            format!("tenant \"{name}\": the name of a folder of the apps directory is wanted"),
        ));
    }
    let none = "at least one route is wanted; without the key a tenant has the places below its name";
    let routes = section.item("routes", &table.routes, |given| route::parse_all(given, none))?;
    let mut limits = config.limits.clone();
    super::apply_table(field::LIMITS, "limits", section, &table.limits, &mut limits, |field, given, limits| {
        if field.lays_out_the_pool() && field.exceeds(limits, &config.limits) {
            let ceiling = field.text(&config.limits);
            return Err(given.refuse(format!("more than the {ceiling} of [limits], for which the host is laid out")));
        }
        Ok(())
    })?;
    let mut budget = config.budget.clone();
    super::apply_table(field::BUDGET, "budget", section, &table.budget, &mut budget, |_, _, _| Ok(()))?;
    Ok(Tenant {
        name: name.to_owned(),
        routes: routes.unwrap_or_else(|| vec![own_place(name)]),
        limits,
        budget,
        grants: Grants::parse(&table.grant, section, &config.grants.of_others())?,
    })
}

/// Two tenants cannot have the same place. One of them may have a part of the other's.
fn check_places(tenants: &Tenants) -> Result<(), ConfigError> {
    let mut owners = BTreeMap::new();
    for tenant in tenants.values() {
        for route in &tenant.routes {
            if let Some(other) = owners.insert(route, &tenant.name) {
                let reason = format!("{route} is {other}'s: give one of them another place");
                return Err(ConfigError::new(format!("tenant \"{}\": routes", tenant.name), reason));
            }
        }
    }
    Ok(())
}

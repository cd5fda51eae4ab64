//! [`Config`] → `wasgi.toml`. What it prints can be read again and says the same.

use std::fmt::Write;

use toml::Value;

use super::field::{BUDGET, EDGE, Field, LIMITS, TOP};
use super::{AccessLogFormat, AccessLogTarget, CHUNKED_BODIES, CONFINE, Config, Grants, KEEP_CAPSULES, PASSES};

pub(super) fn to_toml(config: &Config) -> String {
    let text = |text: &str| Value::String(text.to_owned()).to_string();
    let path = |path: &std::path::Path| text(&path.to_string_lossy());
    let mut lines = String::new();
    let mut line = |key: &str, value: &str| {
        writeln!(lines, "{key} = {value}").expect("writing to a string does not fail");
    };
    line("apps_dir", &path(&config.apps_dir));
    line("state_dir", &path(&config.state_dir));
    line("data_dir", &path(&config.data_dir));
    let list = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect()).to_string();
    if let Some(cafile) = &config.outbound_cafile {
        line("outbound_cafile", &path(cafile));
    }
    if let Some(redis) = &config.keyvalue_redis {
        line("keyvalue_redis", &redis.toml().to_string());
    }
    line("bind", &list(config.bind.iter().map(ToString::to_string).collect()));
    if let Some(certificate) = &config.certificate {
        line("certfile", &path(&certificate.certfile));
        line("keyfile", &path(&certificate.keyfile));
    }
    line("forwarded_allow_ips", &list(config.forwarded_allow_ips.texts().collect()));
    let known = CONFINE.iter().find(|(_, meaning)| *meaning == config.confine);
    line("confine", &text(known.map_or("", |(word, _)| word)));
    if !config.confine_paths.is_empty() {
        line(
            "confine_paths",
            &list(config.confine_paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()),
        );
    }
    for (key, name) in [("user", &config.user), ("group", &config.group)] {
        if let Some(name) = name {
            line(key, &text(name));
        }
    }
    line("dev", if config.dev { "true" } else { "false" });
    line("instances", &text(&config.instances.to_string()));
    let known = CHUNKED_BODIES.iter().find(|(_, meaning)| *meaning == config.chunked_bodies);
    line("chunked_bodies", &text(known.map_or("", |(word, _)| word)));
    let known = PASSES.iter().find(|(_, meaning)| *meaning == config.passes);
    line("passes", &text(known.map_or("", |(word, _)| word)));
    let known = KEEP_CAPSULES.iter().find(|(_, meaning)| *meaning == config.capsules);
    line("capsules", &text(known.map_or("", |(word, _)| word)));
    for field in TOP {
        line(field.key, &field.toml(config));
    }
    line("\n[log]\nfilter", &text(&config.log.filter));
    line("format", if config.log.json { "\"json\"" } else { "\"text\"" });
    let access_log = match &config.access_log {
        None => "\"off\"".to_owned(),
        Some(AccessLogTarget::Stdout) => "\"-\"".to_owned(),
        Some(AccessLogTarget::File(file)) => path(file),
    };
    line("\n[access_log]\nfile", &access_log);
    let format = match config.access_log_format {
        AccessLogFormat::Combined => "\"combined\"",
        AccessLogFormat::Json => "\"json\"",
    };
    line("format", format);
    table(&mut lines, "edge", EDGE, |_| true, &config.edge);
    table(&mut lines, "limits", LIMITS, |_| true, &config.limits);
    table(&mut lines, "budget", BUDGET, |_| true, &config.budget);
    grants(&mut lines, "grant", &config.grants);
    for tenant in config.tenants.values() {
        let name = text(&tenant.name);
        lines.push_str(&format!("\n[tenant.{name}]\n"));
        lines.push_str(&format!("routes = {}\n", list(tenant.routes.iter().map(ToString::to_string).collect())));
        // What is not said is what stands above.
        let (limits, budget) = (&tenant.limits, &tenant.budget);
        table(
            &mut lines,
            &format!("tenant.{name}.limits"),
            LIMITS,
            |field| field.differs(limits, &config.limits),
            limits,
        );
        table(
            &mut lines,
            &format!("tenant.{name}.budget"),
            BUDGET,
            |field| field.differs(budget, &config.budget),
            budget,
        );
        grants(&mut lines, &format!("tenant.{name}.grant"), &tenant.grants);
    }
    lines
}

/// Where secrets are, never what they are.
fn grants(lines: &mut String, name: &str, grants: &Grants) {
    for (table, entries) in grants.lines(name).into_iter().filter(|(_, entries)| !entries.is_empty()) {
        lines.push_str(&format!("\n[{table}]\n"));
        for (key, value) in entries {
            lines.push_str(&format!("{key} = {value}\n"));
        }
    }
}

/// The fields that are worth printing.
fn table<T>(lines: &mut String, name: &str, fields: &[Field<T>], is_printed: impl Fn(&Field<T>) -> bool, of: &T) {
    let mut fields = fields.iter().filter(|field| is_printed(field)).peekable();
    if fields.peek().is_some() {
        lines.push_str(&format!("\n[{name}]\n"));
    }
    for field in fields {
        lines.push_str(&format!("{} = {}\n", field.key, field.toml(of)));
    }
}

//! Every field of the config, and whether a reload or only a restart applies a change of it. The config reference in the
//! docs says the same.

use super::Config;

/// A program that reads the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `sq-gateway serve`, and the gateway of `up`.
    Gateway,
    /// `sq-worker pool`.
    Pool,
}

/// A field of the config.
#[derive(Debug)]
pub struct Field {
    /// `section.key`; the fields of a plan are `plan.NAME.key`.
    pub name: &'static str,
    /// The programs that apply a change of it when they are restarted, or upgraded; none for a field that a reload applies.
    pub restarts: &'static [Reader],
    /// Sets a field that needs a restart to the running config's value, and says whether it had another one.
    keep: fn(&mut Config, &Config) -> bool,
}

/// A field that only a restart applies. Its name is that of its place in [`Config`].
macro_rules! on_restart {
    ($section:ident . $key:ident, $of:expr) => {
        Field {
            name: concat!(stringify!($section), ".", stringify!($key)),
            restarts: $of,
            keep: |new, running| keep(&mut new.$section.$key, &running.$section.$key),
        }
    };
}

/// Every field, in the order of `config/gateway.toml`.
pub static FIELDS: [Field; 35] = [
    on_restart!(gateway.listen, GATEWAY),
    // These two belong together: a running listener may be meant for this machine alone.
    on_restart!(gateway.admin_listen, GATEWAY),
    on_restart!(gateway.admin_allow_remote, GATEWAY),
    on_reload("gateway.admin_key_sha256"),
    on_reload("gateway.tenants"),
    // An active tenant must not be moved to another, empty directory.
    on_restart!(gateway.data_root, BOTH),
    on_restart!(gateway.slots, BOTH),
    on_reload("gateway.trusted_proxies"),
    on_restart!(gateway.threads, GATEWAY),
    on_restart!(gateway.audit, GATEWAY),
    on_reload("limits.per_ip"),
    on_reload("limits.per_tenant"),
    on_reload("limits.failed_keys"),
    on_reload("limits.in_flight"),
    on_restart!(limits.connections, GATEWAY),
    on_reload("limits.head"),
    on_reload("limits.body"),
    on_reload("limits.quota"),
    on_reload("limits.phexts"),
    on_reload("limits.coordinate"),
    on_reload("timeouts.head"),
    on_reload("timeouts.idle"),
    on_reload("timeouts.answer"),
    on_reload("timeouts.drain"),
    on_reload("cors.allow_origins"),
    // The gateway asks this address for the pool's state.
    on_restart!(pool.status_listen, BOTH),
    on_restart!(pool.slot_address, BOTH),
    on_reload("pool.idle_timeout"),
    on_reload("pool.memory"),
    on_restart!(pool.sandbox, POOL),
    on_reload("plan.NAME.per_tenant"),
    on_reload("plan.NAME.in_flight"),
    on_reload("plan.NAME.quota"),
    on_reload("plan.NAME.phexts"),
    on_reload("plan.NAME.memory"),
];

const GATEWAY: &[Reader] = &[Reader::Gateway];
const POOL: &[Reader] = &[Reader::Pool];
const BOTH: &[Reader] = &[Reader::Gateway, Reader::Pool];

const fn on_reload(name: &'static str) -> Field {
    Field { name, restarts: &[], keep: |_, _| false }
}

fn keep<T: Clone + PartialEq>(new: &mut T, running: &T) -> bool {
    let is_changed = new != running;
    new.clone_from(running);
    is_changed
}

impl Config {
    /// Keeps the running config's values of the fields that only a restart applies. Returns those that differed.
    pub fn keep_until_restart(&mut self, running: &Self) -> Vec<&'static Field> {
        FIELDS.iter().filter(|field| (field.keep)(self, running)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("/etc/sq/gateway.toml"), text).unwrap()
    }

    /// The sample names every field, `pool.sandbox` in a comment; a plan's fields stand in its comments.
    #[test]
    fn the_table_has_the_fields_of_the_sample_in_its_order() {
        let (mut section, mut names) = (String::new(), Vec::new());
        for line in include_str!("../../../config/gateway.toml").lines() {
            let line = if line == "# sandbox = \"require\"" { &line[2..] } else { line };
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                names.push(format!("{section}.{key}"));
            }
        }
        names.retain(|name| !name.starts_with("plan."));
        let table: Vec<&str> =
            FIELDS.iter().map(|field| field.name).filter(|name| !name.starts_with("plan.")).collect();
        assert_eq!(table, names);
    }

    #[test]
    fn each_field_of_the_table_is_a_field_of_the_config() {
        for field in &FIELDS {
            let (section, key) = field.name.rsplit_once('.').unwrap();
            let text = format!("[{section}]\n{key} = {{}}\n");
            let mistakes = Config::parse(Path::new("/etc/sq/gateway.toml"), &text).unwrap_err().to_string();
            assert!(!mistakes.contains("unknown"), "{mistakes}");
        }
    }

    #[test]
    fn a_reload_keeps_what_needs_a_restart() {
        let running = parse("");
        let mut changed =
            parse("[gateway]\nadmin_allow_remote = true\nslots = \"2341-2840\"\n[limits]\nper_ip = \"off\"");
        let waiting = changed.keep_until_restart(&running);
        let names: Vec<&str> = waiting.iter().map(|field| field.name).collect();
        assert_eq!(names, ["gateway.admin_allow_remote", "gateway.slots"]);
        assert!(!waiting[0].restarts.contains(&Reader::Pool) && waiting[1].restarts.contains(&Reader::Pool));
        assert!(
            !changed.gateway.admin_allow_remote,
            "a running listener may be meant for this machine alone"
        );
        assert_eq!((changed.gateway.slots, changed.limits.per_ip), (1341..=1840, None));
    }
}

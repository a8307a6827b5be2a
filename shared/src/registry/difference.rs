//! The tenants that a reload changed, for the log.

use std::collections::HashMap;

use super::{Registry, Tenant};
use crate::tenant::TenantName;

/// How many names are written out; the others are counted.
const NAMED: usize = 10;

/// The names of tenants, with commas between them; empty when there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// New tenants.
    pub added: String,
    /// Removed tenants.
    pub removed: String,
    /// Tenants with other settings than before.
    pub changed: String,
}

impl Registry {
    /// The changes since an earlier registry.
    pub fn difference(&self, before: &Self) -> Difference {
        let (now, then) = (self.by_name(), before.by_name());
        let changed = |tenant: &&Tenant| then.get(&tenant.name).is_some_and(|earlier| earlier != tenant);
        Difference {
            added: names(self.tenants.iter().filter(|tenant| !then.contains_key(&tenant.name))),
            removed: names(before.tenants.iter().filter(|tenant| !now.contains_key(&tenant.name))),
            changed: names(self.tenants.iter().filter(changed)),
        }
    }

    fn by_name(&self) -> HashMap<&TenantName, &Tenant> {
        self.tenants.iter().map(|tenant| (&tenant.name, tenant)).collect()
    }
}

fn names<'t>(tenants: impl Iterator<Item = &'t Tenant>) -> String {
    let all: Vec<&str> = tenants.map(|tenant| tenant.name.as_str()).collect();
    let named = all.get(..NAMED).unwrap_or(&all).join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn registry(tenants: impl IntoIterator<Item = (String, u16, &'static str)>) -> Registry {
        let table = |(name, port, state)| {
            format!("[[tenant]]\nname = \"{name}\"\nport = {port}\nstate = \"{state}\"\n")
        };
        let text: String = tenants.into_iter().map(table).collect();
        let config = Config::parse(Path::new("/srv/sq/gateway.toml"), "").unwrap();
        Registry::parse(Path::new("/srv/sq/tenants.toml"), &text, &config).unwrap().registry
    }

    #[test]
    fn tenants_are_listed_by_their_change() {
        let reserved = |name: &str, port| (name.to_owned(), port, "reserved");
        let before = registry([reserved("alice", 1341), reserved("bob", 1342), reserved("carol", 1343)]);
        let after = registry([
            reserved("alice", 1341),
            ("bob".to_owned(), 1342, "suspended"),
            reserved("dave", 1343),
        ]);
        let names = |text: &str| text.to_owned();
        let difference = Difference { added: names("dave"), removed: names("carol"), changed: names("bob") };
        assert_eq!(after.difference(&before), difference);
        let none = Difference { added: names(""), removed: names(""), changed: names("") };
        assert_eq!(after.difference(&after), none);
    }

    #[test]
    fn ten_of_many_tenants_are_named() {
        let many =
            |count| registry((1..=count).map(|number| (format!("t{number}"), 1340 + number, "reserved")));
        let ten = "t1, t2, t3, t4, t5, t6, t7, t8, t9, t10";
        assert_eq!(many(10).difference(&Registry::default()).added, ten);
        assert_eq!(many(11).difference(&Registry::default()).added, format!("{ten} and 1 more"));
    }
}

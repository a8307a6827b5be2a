//! A config: read, or refused with mistakes that stand in it.

use std::path::Path;

use sq_shared::config::Config;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(Path::new("/srv/gateway.toml"), text) {
        Ok(config) => {
            assert!(config.gateway.slots.start() <= config.gateway.slots.end());
            for plan in config.plans.keys() {
                let _ = config.limits_of(Some(plan));
            }
        }
        Err(mistakes) => assert_stand_in(text, &mistakes),
    }
}

/// Each mistake says something, and where it says a place, the text has it.
pub(crate) fn assert_stand_in(text: &str, mistakes: &sq_shared::toml_reader::Mistakes) {
    assert!(!mistakes.0.is_empty(), "refused without a reason");
    for mistake in &mistakes.0 {
        assert!(!mistake.message.is_empty());
        let Some((line, column)) = mistake.position else { continue };
        let lines = text.split('\n').count();
        assert!((1..=lines).contains(&line) && column <= text.len() + 1, "{mistake:?}");
    }
}

//! The machine that a figure was measured on; without it, a figure means little.

use std::fs;

/// Its processors and its kernel.
pub fn description() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // This process may be restricted to some of them.
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

/// The load average (proc_loadavg(5)): other load affects the figures.
pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

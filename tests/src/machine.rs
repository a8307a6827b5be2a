//! The machine that a figure was taken on: without it a figure says little.

use std::fs;

/// Its processors and its kernel.
pub fn description() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Whoever asks may be allowed to use a part of them.
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

/// How busy it is, as proc_loadavg(5) says it: what else runs, the figures pay for.
pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

//! On what was measured, and the tables, as Markdown.

use std::fs;
use std::process::Command;

use sq_tests::process;

use super::measure::Figures;
use super::options::Options;
use super::proxy::Kind;

/// Prints the machine.
pub(crate) fn machine() {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // The bench itself may use all but the first.
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let compiler = process::run(Command::new("rustc").arg("--version"));
    println!(
        "- machine: {cores} cores, {}, Linux {}",
        model.map_or("unknown", |(_, name)| name),
        kernel.trim()
    );
    println!("- compiler: {}", compiler.stdout.trim());
    load_average();
}

/// Prints how busy the machine is: what else runs, the figures pay for.
pub(crate) fn load_average() {
    println!("- load: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}

/// Says which proxies are here, and gives those that are asked for.
pub(crate) fn found(options: &Options) -> Vec<Kind> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        match kind.program() {
            Some(program) => {
                println!("- {}: {}", kind.name(), kind.version(&program));
                // What the others are compared with is always there.
                if kind == Kind::Nginx || options.wants_proxy(kind.name()) {
                    found.push(kind);
                }
            }
            None => println!("- {}: not found, and left out", kind.name()),
        }
    }
    found
}

/// Prints a table: each program, and beside its figures how many times those of the first they are.
pub(crate) fn table(title: &str, all: &[Figures]) {
    println!("\n### {title}\n");
    println!(
        "| | requests/s | p50 ms | p99 ms | CPU µs a request (user + system) | least to most | memory MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let Some(first) = all.first() else { return };
    for one in all {
        println!(
            "| {} | {:.0} ({:.2}×) | {:.3} ({:.2}×) | {:.2} | {:.1} ({:.2}×) = {:.1} + {:.1} | {:.1} to {:.1} | {:.1} |",
            one.name,
            one.rate,
            one.rate / first.rate,
            one.p50_us / 1e3,
            one.p50_us / first.p50_us,
            one.p99_us / 1e3,
            one.cpu_us(),
            one.cpu_us() / first.cpu_us(),
            one.user_us,
            one.system_us,
            one.cpu_spread_us.0,
            one.cpu_spread_us.1,
            one.memory_kib / 1024.0,
        );
    }
}

//! On what was measured, and the tables, as Markdown.

use std::process::Command;

use sq_tests::{machine, process};

use super::measure::{Figures, Line};
use super::options::Options;
use super::proxy::Kind;

/// Prints the machine.
pub(crate) fn machine() {
    let compiler = process::run(Command::new("rustc").arg("--version"));
    println!("- machine: {}", machine::description());
    println!("- compiler: {}", compiler.stdout.trim());
    load_average();
}

/// Prints how busy the machine is.
pub(crate) fn load_average() {
    println!("- load: {}", machine::load_average());
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

/// Prints a table: each program, and beside its figures how many times those of the first they are ([`Line`]).
pub(crate) fn table(title: &str, lines: &[Line]) {
    println!("\n### {title}\n");
    println!(
        "| | requests/s | p50 ms | p99 ms | CPU µs a request (user + system) | least to most | memory MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for line in lines {
        let Figures { rate, p50_us, p99_us, user_us, system_us, cpu_us, memory_kib } = line.figures;
        println!(
            "| {} | {rate:.0} ({:.2}×) | {:.3} ({:.2}×) | {:.2} | {cpu_us:.1} ({:.2}×) = {user_us:.1} + {system_us:.1} | {:.1} to {:.1} | {:.1} |",
            line.name,
            line.rate_ratio,
            p50_us / 1e3,
            line.p50_ratio,
            p99_us / 1e3,
            line.cpu_ratio,
            line.cpu_spread_us.0,
            line.cpu_spread_us.1,
            memory_kib / 1024.0,
        );
    }
}

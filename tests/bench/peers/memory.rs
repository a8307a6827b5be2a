//! The gateway's memory while 256 connections ask for 500 tenants: as long as one looks, it is to stay as it is.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, SHORT};
use super::load::Load;
use super::options::Options;
use super::proxy::{Kind, Rate, Site};
use super::script::Script;
use super::usage::memory_kib;

/// How many lines the table has.
const LOOKS: u32 = 20;

/// Prints it.
pub(crate) fn run(options: &Options) {
    let fleet = Fleet::start(options);
    let proxy = Kind::Gateway.start(&Site { fleet: &fleet, tenants: &fleet.tenants, rate: Rate::Never });
    let script = Script::get("memory", &format!("/api/v2/select?{SHORT}"), &fleet.tenants).write(&fleet.root);
    println!("\n### sq-gateway: memory under load, 500 tenants, 256 connections\n");
    println!("| after s | requests | memory MiB |\n|---:|---:|---:|");
    let time = Duration::from_secs((options.memory_time.as_secs() / u64::from(LOOKS)).max(1));
    let started = Instant::now();
    let mut requests = 0;
    println!("| 0 | 0 | {:.1} |", memory_kib(proxy.pid()) as f64 / 1024.0);
    for _ in 0..LOOKS {
        let load = Load { address: proxy.address, script: &script.file, connections: 256, time };
        let (ran, memory_kib) = load.run_and_look(|| memory_kib(proxy.pid()));
        requests += ran.requests;
        println!("| {} | {requests} | {:.1} |", started.elapsed().as_secs(), memory_kib as f64 / 1024.0);
    }
}

//! Tries one way out of a worker: `escape ROW WALLS OWN NEIGHBOUR PID PORT`, with the walls that `sq-worker serve` puts up
//! around itself, or without. Prints `allowed`, or `denied` and why; the kernel may end it first. `escape list`
//! prints the rows.

#![expect(
    unsafe_code,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "it makes system calls that no library offers, and is a test"
)]

mod field;
mod rows;

use std::io;
use std::path::Path;

use field::Field;
use rows::{Row, rows};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use sq_shared::config::Enforcement;
use sq_shared::process::service_user;
use sq_worker::sandbox;
use sq_worker::store::DataDirectory;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["list"] => rows().iter().for_each(|Row { name, privilege, wall, .. }| {
            println!("{name}\t{}\t{}", privilege.as_str(), wall.as_str());
        }),
        [row, walls, own, neighbour, pid, port] => {
            let attempt = rows().into_iter().find(|known| known.name == *row).expect("a row").attempt;
            let field = Field::new(Path::new(own), Path::new(neighbour), pid, port);
            confine(walls, Path::new(own));
            match attempt(&field) {
                Ok(_) => println!("allowed"),
                Err(error) => println!("denied {error}"),
            }
        }
        ["type", system] => type_into_terminal(Path::new(system)),
        _ => println!("usage: escape list | escape type SYSTEM | escape ROW WALLS OWN NEIGHBOUR PID PORT"),
    }
}

/// Gives root up as what serves a system does, and types a space into the terminal.
fn type_into_terminal(system: &Path) {
    service_user::act_as_owner_of(system).expect("to act as the owner");
    service_user::give_up_root().expect("to give root up");
    match call(libc::SYS_ioctl, [0, libc::TIOCSTI as usize, c" ".as_ptr().addr(), 0, 0, 0]) {
        Ok(_) => println!("allowed"),
        Err(error) => println!("denied {error}"),
    }
}

/// Puts up the walls: `none`, `all`, or all but the root directory of its own, as in a container that may not make
/// one.
fn confine(walls: &str, own: &Path) {
    if walls == "none" {
        return;
    }
    if walls == "no-root" {
        refuse(&[libc::SYS_chroot, libc::SYS_unshare]);
    }
    let directory = DataDirectory::open(own).expect("the directory");
    let directory = std::os::fd::AsFd::as_fd(&directory);
    let (confinement, ()) = sandbox::confine(directory, Enforcement::Require, || Ok(())).expect("a sandbox");
    assert_eq!(confinement.own_root, walls == "all", "{confinement}");
}

fn refuse(calls: &[i64]) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("a known architecture");
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("its use");
}

/// Any system call.
fn call(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: what the callers pass is numbers, and addresses of values that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

# What one does in this repository: `just` lists it. Needs just 1.27 or later.

# Show this list
[private]
default:
    @just --list --unsorted

# Build for release, and run the whole system in ./sq-data
[group('run')]
run:
    cargo build --release && ./target/release/sq-gateway up

# Compile everything, without building programs
[group('check')]
check:
    cargo check --workspace --all-targets --locked

# Format the code
[group('check')]
fmt:
    cargo fmt --all

# Run clippy; every warning is an error
[group('check')]
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Check the house rules and the docs
[group('check')]
tidy:
    cargo test -p sq-tests --locked --test it -- tidy config_reference

# Run all tests: about four minutes
[group('test')]
test:
    cargo test --workspace --locked

# Run the integration tests whose names contain NAME
[group('test')]
one NAME:
    cargo test -p sq-tests --locked --test it -- {{ NAME }}

# Fuzz one target, or all of them, for SECONDS each
[group('test')]
fuzz TARGET='all' SECONDS='60':
    tests/fuzz/run {{ TARGET }} {{ SECONDS }}

# Run everything that must hold before a change lands; installs tools (Debian, root)
[group('test')]
ci:
    .ci/run

# Measure beside nginx, HAProxy and sq: about an hour
[group('measure')]
bench *ARGS:
    tests/bench/run {{ ARGS }}

# Count the instructions of a request (valgrind)
[group('measure')]
count:
    tests/bench/count

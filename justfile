# Recipes for developers. `just` alone lists them.

_list:
    @just --list --unsorted

# Everything that has to hold before a change is shared
test:
    .ci/run

# Start Gannet with events to ask about
demo:
    cargo run --release -- up --demo

# Show what a seed of the simulation does, and whether it breaks a promise
simulate SEED:
    SIMULATION_SEED={{SEED}} cargo test -p gannet-tests --test simulation replay -- --nocapture

# Try seeds of the simulation that nobody tried before, for an hour or as long as you say
simulate-long SECONDS='3600':
    SIMULATION_SECONDS={{SECONDS}} SIMULATION_FIRST_SEED=$(date +%s%N) cargo test -p gannet-tests --test simulation no_seed -- --nocapture

# Show what a seed of the simulated network does, and whether it breaks a promise
network SEED:
    NETWORK_SEED={{SEED}} cargo test -p gannet-tests --test network replay -- --nocapture

# Try seeds of the simulated network that nobody tried before, for an hour or as long as you say
network-long SECONDS='3600':
    NETWORK_SECONDS={{SECONDS}} NETWORK_FIRST_SEED=$(date +%s%N) cargo test -p gannet-tests --test network no_seed -- --nocapture

# Kill a leaf under load so many times, and count every row
kill-long KILLS='2000':
    cargo build -p gannet
    KILLS={{KILLS}} cargo test -p gannet-tests --test processes killed -- --nocapture

# Start leaves on damaged files and segments that nobody tried before, for ten minutes or as long as you say
damage SECONDS='600':
    SWEEP_SECONDS={{SECONDS}} SWEEP_FIRST=$(date +%s%N) cargo test -p gannet-tests --test simulation no_damage -- --nocapture

# Try bytes that nobody tried before on what reads them: image, wal, manifest, catalogue, plan, partial, completeness, values, ndjson, json, csv, arrow, packed
fuzz TARGET SECONDS='60':
    SWEEP_SECONDS={{SECONDS}} SWEEP_FIRST=$(date +%s%N) cargo test -p gannet-tests --test fuzz -- --exact {{TARGET}} --nocapture

# Write the sample of today's formats, when one of them has a new version; old ones stay as they are
sample:
    GANNET_SAMPLE=1 cargo test -p gannet-tests --test formats -- --exact write

# Run the benchmarks; `just bench --bench scan -- 1000000 'group'` runs some of one
bench *ARGS:
    cargo bench -p gannet-benches {{ARGS}}

# Compare with other engines on this machine: builds, loads, checks, times, and writes a page to benches/results/
compare *ARGS:
    python3 -m unittest discover -s benches/peers
    benches/peers/run {{ARGS}}

# Format every crate
fmt:
    cargo fmt --all

# Write the expectations of the golden files anew; read the diff before you keep it
golden-complete:
    GANNET_COMPLETE=1 cargo test -p gannet-tests --test golden

# Advisories, licences and sources of the dependencies
deny:
    cargo deny check

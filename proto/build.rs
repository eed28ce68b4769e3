//! Generates the wire types from `gannet/v1/*.proto` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "gannet/v1/query.proto",
        "gannet/v1/ingest.proto",
        "gannet/v1/admin.proto",
        "gannet/v1/roster.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

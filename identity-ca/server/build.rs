//! Compiles the SPIFFE Workload API with a Rust protobuf compiler, so that nothing needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/workload.proto");
    let files = protox::compile(["proto/workload.proto"], ["proto"])?;
    // The client half is for tests; programs use the SPIFFE libraries of their language.
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}

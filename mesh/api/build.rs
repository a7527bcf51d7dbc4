//! Compiles the wire interfaces with a Rust protobuf compiler, so that nothing needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/mesh.proto");
    let files = protox::compile(["proto/mesh.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Many updates share one discovery.
        .bytes(".mesh.v1.WorkloadUpdate.discovery_json")
        .bytes(".mesh.v1.DiscoverySlice.json")
        .compile_fds(files)?;
    Ok(())
}

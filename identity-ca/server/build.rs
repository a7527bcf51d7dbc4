//! Compiles the SPIFFE Workload and Broker APIs and Envoy's SDS with a Rust protobuf compiler, so that nothing needs to be installed.

use prost::Message;
use std::fs::File;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let workload = protox::compile(["proto/workload.proto"], ["proto"])?;
    // What gRPC server reflection answers with.
    let mut descriptor = File::create(Path::new(&out).join("workload.bin"))?;
    descriptor.write_all(&workload.encode_to_vec())?;
    // The client half is for tests; programs use the SPIFFE libraries of their language.
    tonic_prost_build::configure().compile_fds(workload)?;
    let broker = protox::compile(["proto/broker.proto"], ["proto"])?;
    let mut descriptor = File::create(Path::new(&out).join("broker.bin"))?;
    descriptor.write_all(&broker.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(broker)?;
    let status = protox::compile(["proto/status.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(status)?;
    let sds = protox::compile(["proto/secrets.proto", "proto/tls.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(sds)?;
    Ok(())
}

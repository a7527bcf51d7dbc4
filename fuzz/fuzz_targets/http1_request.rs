//! libFuzzer's door to [`mesh_fuzz::http1_request`]; an empty program where cargo-fuzz does not build it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::http1_request(data));

#[cfg(not(fuzzing))]
fn main() {}

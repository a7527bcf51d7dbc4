//! libFuzzer's door to [`mesh_fuzz::residual_vs_cedar`]; an empty program where cargo-fuzz does not build it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::residual_vs_cedar(data));

#[cfg(not(fuzzing))]
fn main() {}

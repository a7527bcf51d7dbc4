//! libFuzzer's door to [`mesh_fuzz::ceremony_share`]; an empty program where cargo-fuzz does not build it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::ceremony_share(data));

#[cfg(not(fuzzing))]
fn main() {}

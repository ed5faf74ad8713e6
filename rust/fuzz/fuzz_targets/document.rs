#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ssmrt_fuzz::document::target(data));

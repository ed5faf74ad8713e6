#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ssmrt_fuzz::engine::{Session, target};

fuzz_target!(|session: Session| -> Corpus { target(&session) });

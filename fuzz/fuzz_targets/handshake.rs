#![no_main]

use std::sync::LazyLock;

use tidings_fuzz::Handshakes;

static BROKER: LazyLock<Handshakes> = LazyLock::new(Handshakes::start);

libfuzzer_sys::fuzz_target!(|data: &[u8]| BROKER.check(data));

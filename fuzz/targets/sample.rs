//! Any bytes as a sample from the perf buffer. They decode, or they are too short. Padding changes nothing,
//! and every sample becomes an event.

#![no_main]

use std::collections::HashMap;

use portcullis::clock::Clock;
use portcullis::drops::Context;
use portcullis::drops::decode;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(sample) = decode(data) else {
        return;
    };
    assert!(sample.frame.len() <= 128 && sample.frame.len() < data.len());
    assert!(data.windows(sample.frame.len().max(1)).any(|piece| piece.starts_with(&sample.frame)));
    let mut shifted = vec![0xff];
    shifted.extend_from_slice(data);
    assert_eq!(decode(&shifted[1..]).as_ref(), Ok(&sample));
    let names = HashMap::from([(1, "web1".into())]);
    let clock = Clock { mono_ns: 10_000_000_000, wall: "2026-11-22T15:00:00Z".parse().expect("a time") };
    let context = Context { interface: "dmz0".into(), clock, names: &names };
    let drop = sample.to_event(sample.drops, &context);
    assert!(!drop.service().is_empty());
    assert_eq!(drop.frame, sample.frame);
});

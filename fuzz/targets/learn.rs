//! Any bytes are read as a capture. Whatever a capture has in it, the policy that is learnt of it is one that the program
//! itself takes.

#![no_main]

use std::io::Cursor;

use portcullis::capture::{CaptureReader, Merge};
use portcullis::learn::{Request, Servers, learn_from, read_answer};
use portcullis::policy::parse;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((name, addresses)) = read_answer(data) {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        assert!(name.chars().all(is_plain) && !addresses.is_empty(), "{name:?}");
    }
    let reader = CaptureReader::new("fuzz".to_owned(), Box::new(Cursor::new(data.to_vec())));
    let networks = ["192.0.2.0/24", "2001:db8:1::/64"].map(|network| network.parse().expect("a network"));
    let request = Request {
        files: &[],
        servers: Servers::Networks { networks: networks.to_vec(), except: Vec::new() },
        is_increment: false,
        unused: None,
        aggregate: data.len().is_multiple_of(2),
    };
    match learn_from(Merge::new(vec![reader]), &request) {
        Ok(learned) => {
            parse(&learned.text, "learnt").expect("a policy");
        }
        Err(error) => assert!(!format!("{error:#}").contains("defect"), "{error:#}"),
    }
});

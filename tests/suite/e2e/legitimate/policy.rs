//! The policy of these tests, of which any need can be left out.

use crate::e2e::policies::{SETS_AND_SERVERS, TABLES};

/// Where a need stands and what it says; `[policy]` has the `management`.
pub type Need = (&'static str, &'static str, &'static str);

const NEEDS: &[Need] = &[
    ("web", "in", "tcp/80"),
    ("web", "in", "tcp/443"),
    ("web", "in", "icmp/echo-request"),
    ("web", "in", "icmpv6/echo-request"),
    ("mail", "in", "tcp/25"),
    ("mail", "out", "tcp/25"),
    ("dns", "in", "udp/53"),
    ("dns", "in", "tcp/53"),
    ("dns", "out", "udp/53"),
    ("dns", "out", "tcp/53"),
    ("managed", "out", "udp/514 to @loghosts"),
    ("managed", "out", "udp/123 to @clocks"),
    ("policy", "management", "tcp/22 from @bastion"),
];

/// The whole policy, or all but one need.
pub fn policy(without: Option<Need>, pickup_s: u32) -> String {
    if let Some(need) = without {
        assert!(NEEDS.contains(&need), "no such need: {need:?}");
    }
    let list = |role: &str, direction: &str| {
        let needs = NEEDS.iter().filter(|need| (need.0, need.1) == (role, direction));
        let kept = needs.filter(|need| without != Some(**need)).map(|need| format!("\"{}\"", need.2));
        format!("{direction} = [{}]\n", kept.collect::<Vec<_>>().join(", "))
    };
    let mut text = format!("[policy]\npickup = {pickup_s}\n{}", list("policy", "management"));
    text.push_str(SETS_AND_SERVERS);
    for role in ["web", "mail", "dns", "managed"] {
        text.push_str(&format!("\n[roles.{role}]\n{}{}", list(role, "in"), list(role, "out")));
    }
    text + TABLES
}

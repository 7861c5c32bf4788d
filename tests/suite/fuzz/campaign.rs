//! Many sequences, on as many processors as there are, until there were enough.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::conversation::Talk;
use super::differ::{Differ, Disagreement, Room, read_policy};
use super::event::{EditOrder, Event, Sequence, Whom};
use super::network::enter_own_network;
use super::policies::{SERVERS, change_policy, make_policy};
use super::setting::{HOMES, SERVER_MACS};
use super::shrink::shrink;
use crate::model::Coverage;
use crate::support::chance::Chance;
use crate::support::cpu::stay_on_nth_cpu;
use crate::support::frame::ROUTER_MAC;

/// Sequences under one policy and its changes: a swap takes as long as hundreds of sequences.
const POLICY: u64 = 512;
/// Flows are compared after so many sequences, ledger and counters more seldom; verdicts always.
const FLOWS_EVERY: u64 = 4;
const BOOKS_EVERY: u64 = 16;
/// All is forgotten when a table has so many entries: reading them takes the time, and none must push
/// out another.
const FULL: usize = 120;

/// Three of four stories have the first.
const ROOMS: [Room; 2] = [Room::Ample, Room::Scarce];

/// What is asked of a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub seed: u64,
    pub sequences: u64,
    pub time: Option<Duration>,
    pub workers: usize,
    /// Whether a disagreement is news: not of programs that were broken on purpose.
    pub look_into: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub packets: u64,
    pub sequences: u64,
    pub policies: u64,
    /// Disagreements that did not come again: a clock ticked between two readings.
    pub passing: u64,
    /// Those of them where the machine had stood still for so long that they say nothing.
    pub stalled: u64,
    pub found: Vec<(Sequence, Disagreement)>,
    /// What was met, with ample and with scarce room.
    pub coverage: [Coverage; 2],
}

struct Shared {
    order: Order,
    begun: Instant,
    next_story: AtomicU64,
    stop: AtomicBool,
    outcome: Mutex<Outcome>,
}

/// Runs until the order is done or a disagreement was found.
pub fn run(order: Order) -> Outcome {
    let shared = Shared {
        order,
        begun: Instant::now(),
        next_story: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        outcome: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for worker in 0..order.workers {
            let shared = &shared;
            scope.spawn(move || work(shared, worker));
        }
    });
    shared.outcome.into_inner().expect("the outcome")
}

fn work(shared: &Shared, worker: usize) {
    enter_own_network();
    stay_on_nth_cpu(worker);
    // each story has its differ by its number, so that a seed makes the same stories in any thread
    let mut differs = ROOMS.map(Differ::new);
    while !shared.stop.load(Ordering::Relaxed) {
        let story = shared.next_story.fetch_add(1, Ordering::Relaxed);
        let room = (story % 4 / 3) as usize;
        let differ = &mut differs[room];
        play_story(shared, differ, story);
        let mut outcome = shared.outcome.lock().expect("the outcome");
        outcome.coverage[room].add(&differ.take_coverage());
        outcome.packets += std::mem::take(&mut differ.packets);
        outcome.policies += 1;
        let late = shared.order.time.is_some_and(|time| shared.begun.elapsed() >= time);
        if outcome.sequences >= shared.order.sequences || late {
            shared.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// One policy's story, which depends on the seed and its number alone.
fn play_story(shared: &Shared, differ: &mut Differ, number: u64) {
    let mut talk = Talk::new(Chance::part(shared.order.seed, number));
    let policy = loop {
        let policy = make_policy(talk.chance());
        if read_policy(&policy, Room::Ample).is_some() {
            break policy;
        }
    };
    let mut live = policy.clone();
    let mut before = None;
    let mut story = Sequence { policy, events: Vec::new() };
    assert!(differ.begin(&story.policy), "a policy that was read before");
    if talk.chance().percent(25) {
        let event = Event::Pickup(120);
        let _ = differ.happen(&event);
        story.events.push(event);
    }
    for count in 1..=POLICY {
        let mut events = talk.invent();
        let orders = invent_orders(talk.chance(), &mut live, &mut before);
        if !orders.is_empty() {
            // in the middle of it, and of what is sent in pieces
            let orders: Vec<Event> = orders.into_iter().flat_map(|order| talk.send_across(order)).collect();
            let at = talk.chance().below(events.len() + 1);
            events.splice(at..at, orders);
            events.extend(talk.say_again());
        }
        for event in events {
            let result = differ.happen(&event);
            story.events.push(event);
            if let Some(Err(what)) = result {
                let at = story.events.len() - 1;
                return look_into(shared, differ, &story, Disagreement { at, what });
            }
        }
        let books = count % BOOKS_EVERY == 0;
        let tables = match count {
            _ if books => differ.compare_tables(),
            _ if count % FLOWS_EVERY == 0 => differ.compare_flows(),
            _ => Ok(()),
        };
        if let Err(what) = tables {
            return look_into(shared, differ, &story, Disagreement { at: story.events.len(), what });
        }
        if !books {
            continue;
        }
        shared.outcome.lock().expect("the outcome").sequences += BOOKS_EVERY;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if differ.fullest() > FULL {
            story = Sequence { policy: live.clone(), events: Vec::new() };
            before = None;
            assert!(differ.begin(&story.policy), "a policy that is live");
        }
    }
}

/// What an administrator does, now and then. `before`: the policy to which a trial goes back.
fn invent_orders(chance: &mut Chance, live: &mut String, before: &mut Option<String>) -> Vec<Event> {
    let whom = pick_whom(chance);
    match chance.below(400) {
        0..2 if before.is_some() => match before.take() {
            Some(policy) if chance.percent(60) => {
                *live = policy;
                vec![Event::WayBack]
            }
            _ => vec![Event::Confirm],
        },
        0..2 => {
            let policy = change_policy(chance, live);
            if read_policy(&policy, Room::Ample).is_none() {
                return Vec::new();
            }
            let old = std::mem::replace(live, policy.clone());
            if chance.percent(50) {
                *before = Some(old);
                return vec![Event::Trial(policy)];
            }
            vec![Event::Swap(policy)]
        }
        2..16 => vec![Event::Quarantine(whom, chance.pick(&[None, Some(60), Some(3600), Some(20)]))],
        18..28 => vec![Event::Release(whom)],
        17 => vec![Event::OwnMacs(pick_own_macs(chance))],
        28..44 => vec![Event::Edit(invent_edit(chance))],
        44..48 => vec![Event::Cancel],
        16 => vec![Event::Pickup(chance.pick(&[0, 60, 120]))],
        _ => Vec::new(),
    }
}

/// A need that is given to a server, or taken away, for a time.
fn invent_edit(chance: &mut Chance) -> EditOrder {
    // mostly wide ones, for what a conversation asks is by chance
    const NEEDS: [&str; 14] = [
        "tcp",
        "tcp",
        "tcp",
        "udp",
        "udp",
        "tcp/1-1023",
        "tcp/1024-65535",
        "udp/1-1023",
        "tcp/80",
        "udp/53",
        "icmp/echo-request",
        "icmpv6/echo-request",
        "sctp",
        "gre",
    ];
    const PEERS: [&str; 5] =
        ["", "0.0.0.0/1, ::/1", "128.0.0.0/1, 2000::/3", "203.0.113.0/24", "2001:db8::/32"];
    let inbound = chance.below(2) == 0;
    let peers = chance.pick(&PEERS);
    let preposition = if inbound { "from" } else { "to" };
    let peers = if peers.is_empty() { String::new() } else { format!(" {preposition} {peers}") };
    EditOrder {
        allows: chance.below(3) > 0,
        server: chance.pick(&SERVERS).to_owned(),
        inbound,
        seconds: chance.pick(&[20, 60, 3600, 3600]),
        need: format!("{}{peers}", chance.pick(&NEEDS)),
    }
}

/// A server, an address or prefix of one, or a machine by its MAC.
fn pick_whom(chance: &mut Chance) -> Whom {
    let server = chance.pick(&SERVERS).to_owned();
    match chance.below(6) {
        0 => Whom::Machine(server, chance.pick(&SERVER_MACS)),
        1 | 2 => {
            let (prefix, address) = chance.pick(&HOMES);
            Whom::Addresses(prefix.parse().unwrap_or(IpNet::from(address)))
        }
        _ => Whom::Server(server),
    }
}

/// Of the NIC and of devices above it, some of which other hosts have as well; or nothing is known of them.
fn pick_own_macs(chance: &mut Chance) -> Vec<[u8; 6]> {
    match chance.below(6) {
        0 => Vec::new(),
        1 => vec![ROUTER_MAC, SERVER_MACS[1]],
        2 => vec![SERVER_MACS[0]],
        3 => vec![ROUTER_MAC, SERVER_MACS[0], SERVER_MACS[2]],
        _ => vec![ROUTER_MAC],
    }
}

/// A disagreement: is it one, and what is the least that shows it?
fn look_into(shared: &Shared, differ: &mut Differ, story: &Sequence, first: Disagreement) {
    let stood_still = differ.stood_still();
    let found =
        if shared.order.look_into { shrink(differ, story) } else { Some((story.clone(), first.clone())) };
    match found {
        Some(found) => {
            shared.stop.store(true, Ordering::Relaxed);
            shared.outcome.lock().expect("the outcome").found.push(found);
        }
        None => {
            let mut outcome = shared.outcome.lock().expect("the outcome");
            outcome.passing += 1;
            outcome.stalled += u64::from(stood_still);
            // whole, for what it takes may lie far before it
            let name = format!("passing-{}-{}-", shared.order.seed, outcome.passing);
            let kept =
                tempfile::Builder::new().prefix(&name).suffix(".txt").tempfile().and_then(|mut file| {
                    file.write_all(story.to_string().as_bytes())?;
                    Ok(file.keep()?.1)
                });
            eprintln!("did not come again: {}\nthe whole story is in {kept:?}", first.what);
        }
    }
}

//! What programs and model know of names as destinations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use plain::Plain;
use portcullis::abi::{domain, flow_key, grant, name_connection, query, read_text, share_key, stream};
use portcullis::net::DomainName;

use super::tables::{compare, to_flow_key};
use super::{Differ, TOLERANCE_NS, to_ip};
use crate::model::{Asker, FlowKey};
use crate::support::test_gate::{NAME_MAPS, SECOND_NS};

/// A use is noted once a second.
const USE_TOLERANCE_NS: u64 = TOLERANCE_NS + SECOND_NS;

type GrantKey = (Option<String>, IpAddr, DomainName);

impl Differ {
    pub(super) fn clear_names(&self) {
        for name in NAME_MAPS {
            let map = self.gate.maps.find(name).expect("a map");
            self.dump(name).iter().for_each(|(key, _)| map.delete(key).expect("a deletion"));
        }
    }

    /// Time goes by.
    pub(super) fn age_names(&self, by_ns: u64) {
        let earlier = |time: &mut u64| {
            if *time != 0 {
                *time = time.wrapping_sub(by_ns);
            }
        };
        self.change("grants", |row: &mut grant| {
            [&mut row.answered_ns, &mut row.open_until_ns, &mut row.used_ns].into_iter().for_each(earlier);
        });
        self.change("queries", |row: &mut query| earlier(&mut row.asked_ns));
        self.change("streams", |row: &mut stream| earlier(&mut row.opened_ns));
        self.change("name_connections", |row: &mut name_connection| earlier(&mut row.last_ns));
    }

    fn change<V: Plain + Copy + Default>(&self, name: &str, change: impl Fn(&mut V)) {
        let map = self.gate.maps.find(name).expect("a map");
        for (key, value) in self.dump(name) {
            let mut value: V = super::read(&value);
            change(&mut value);
            // SAFETY: what the tables hold are integers without padding.
            let bytes = unsafe { plain::as_bytes(&value) };
            map.update(&key, bytes, MapFlags::EXIST).expect("an update");
        }
    }

    /// The addresses that are granted.
    pub fn granted_addresses(&self) -> BTreeSet<IpAddr> {
        self.entries::<share_key, grant>("grants").map(|(_, row)| to_ip(&row.address)).collect()
    }

    pub(super) fn compare_names(&self) -> Result<(), String> {
        let (grants, queries) = (self.dump("grants"), self.dump("queries"));
        let model = self.model.names();
        let is_empty = model.grants.is_empty() && model.queries.is_empty() && model.streams.is_empty();
        if is_empty && grants.is_empty() && queries.is_empty() {
            return Ok(());
        }
        let texts: HashMap<u32, DomainName> = self
            .entries::<u32, domain>("domains")
            .map(|(id, row)| (id, DomainName::from_printed(&read_text(&row.text))))
            .collect();
        self.compare_grants(&texts)?;
        self.compare_queries()?;
        self.compare_connections(&texts)
    }

    fn compare_grants(&self, texts: &HashMap<u32, DomainName>) -> Result<(), String> {
        let mut own: BTreeMap<GrantKey, [u64; 3]> = BTreeMap::new();
        for (key, row) in self.entries::<share_key, grant>("grants") {
            let server = (key.server != 0).then(|| self.name_of(key.server));
            let name = texts.get(&row.name).cloned().ok_or("a grant of no name")?;
            let times = [row.answered_ns, row.open_until_ns, row.used_ns];
            let times = times.map(|time| if time == 0 { 0 } else { self.to_model_time(time) });
            if own.insert((server, to_ip(&row.address), name), times).is_some() {
                return Err("two grants for one server, address and name".to_owned());
            }
        }
        let model = self.model.names().grants.iter();
        let model = model.map(|(key, row)| (key.clone(), [row.answered_ns, row.open_until_ns, row.used_ns]));
        compare(own, model.collect(), "grant", |program, model| {
            program[0].abs_diff(model[0]) < TOLERANCE_NS
                && program[1].abs_diff(model[1]) < USE_TOLERANCE_NS
                && program[2].abs_diff(model[2]) < USE_TOLERANCE_NS
        })
    }

    fn compare_queries(&self) -> Result<(), String> {
        let asker = |server: u32, resolver: IpAddr, port: u16| {
            let server = self.name_of(server);
            Asker { server, resolver, port }
        };
        let queries: BTreeMap<(Asker, u16), u64> = self
            .entries::<share_key, query>("queries")
            .filter(|(_, row)| row.asked_ns != 0)
            .map(|(key, row)| {
                let asker = asker(key.server, to_ip(&row.resolver), row.port);
                ((asker, u16::from_be(row.id)), self.to_model_time(row.asked_ns))
            })
            .collect();
        let model = self.model.names().queries.iter().map(|(key, row)| (key.clone(), row.asked_ns)).collect();
        compare(queries, model, "query", |program, model| program.abs_diff(*model) < TOLERANCE_NS)?;
        let streams: BTreeMap<Asker, (u32, bool)> = self
            .entries::<share_key, stream>("streams")
            .map(|(key, row)| (asker(key.server, to_ip(&row.resolver), row.port), (row.next, row.lost != 0)))
            .collect();
        let model = self.model.names().streams.iter();
        let model = model.map(|(key, row)| (key.clone(), (row.next, row.lost))).collect();
        compare(streams, model, "stream", |program, model| program == model)
    }

    fn compare_connections(&self, texts: &HashMap<u32, DomainName>) -> Result<(), String> {
        let connections: BTreeMap<FlowKey, (String, Option<DomainName>, u64)> = self
            .entries::<flow_key, name_connection>("name_connections")
            .map(|(key, row)| {
                let name = texts.get(&row.name).cloned();
                (to_flow_key(&key), (self.name_of(row.server), name, self.to_model_time(row.last_ns)))
            })
            .collect();
        let model = self.model.names().connections.iter();
        let model = model.map(|(key, row)| (*key, (row.server.clone(), Some(row.name.clone()), row.last_ns)));
        compare(connections, model.collect(), "connection by a name", |program, model| {
            (&program.0, &program.1) == (&model.0, &model.1) && program.2.abs_diff(model.2) < USE_TOLERANCE_NS
        })
    }

    fn name_of(&self, server: u32) -> String {
        self.all_names.get(&server).cloned().unwrap_or_else(|| format!("server {server}"))
    }
}

//! Quarantines kept over a reboot: from the kernel's tables to the file, and back.

use super::orders::{Order, later};
use super::saved::{self, Saved, SavedAddress, SavedServer, Span};
use crate::abi::{from_mac_number, to_mac_number};
use crate::clock::{Clock, wall_now};
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::net::{parse_mac, show_mac, show_prefix};

impl Gate {
    /// Puts the quarantines of the file into a gate that no packet passes yet, or into one that was attached
    /// without them, beside those that it has. Returns what is in quarantine now. A failure goes to `warnings`, and stops nothing else.
    pub(in crate::gate) fn restore_quarantines(
        &self,
        place: &GatePlace,
        warnings: &mut Vec<String>,
    ) -> Vec<String> {
        let (saved, mut is_kept) = saved::take(&saved::path_of(place), warnings);
        let mut lines = Vec::new();
        if !saved.is_empty() {
            let mut trouble = |what: &str, error: &GateError| {
                is_kept = false;
                warnings.push(format!("{what} was in quarantine, and could not be put back: {error}"));
            };
            if let Err(error) = self.restore(&saved, &mut trouble) {
                trouble("all that", &error);
            }
            warnings.extend(saved.list_doubted(wall_now()));
            lines = self.describe_quarantines().unwrap_or_default();
        }
        if let Err(error) = place.mark_unread(!is_kept) {
            warnings.push(format!("the next change of a quarantine writes over the file: {error}"));
        }
        lines
    }

    fn restore(&self, saved: &Saved, trouble: &mut impl FnMut(&str, &GateError)) -> Result<(), GateError> {
        let clock = Clock::now();
        let holders = self.live_holders()?;
        self.begin_changes()?;
        let before = self.address_orders(clock.mono_ns)?;
        let mut after = before.clone();
        for server in &saved.servers {
            let Some((since_ns, until_ns)) = server.span.to_mono_ns(&clock) else {
                continue;
            };
            let mut order = Order { since_ns, until_ns, ..Order::default() };
            let named = self.assign_ids(std::slice::from_ref(&server.name)).and_then(|ids| {
                order.server = ids.first().copied().unwrap_or(0);
                let known = self.maps.quarantines.get(&order.server)?.map(Order::from);
                if let Some(known) = known.filter(|known| known.has_effect(clock.mono_ns)) {
                    order.until_ns = later(order.until_ns, known.until_ns);
                }
                self.put_named(order.server, Order { server: 0, ..order })
            });
            let macs = server.macs.iter().filter_map(|mac| parse_mac(mac)).map(to_mac_number);
            if let Err(error) = named.and_then(|()| self.put_noted(order.server, macs)) {
                trouble(&server.name, &error);
            }
            for prefix in server.holders().lost_by(&server.name, &holders) {
                after.carry(prefix, order);
            }
        }
        let ids = self.ids_by_name()?;
        for row in &saved.addresses {
            let Some((since_ns, until_ns)) = row.span.to_mono_ns(&clock) else {
                continue;
            };
            let mac = row.mac.as_deref().and_then(parse_mac).map_or(0, to_mac_number);
            // a name that nobody remembers, and that has no order of its own
            let server = row.server.as_ref().and_then(|name| ids.get(name).copied()).unwrap_or(0);
            after.carry(row.address.trunc(), Order { since_ns, until_ns, mac, server });
        }
        for (prefix, order) in after.0.iter().filter(|(prefix, order)| before.0.get(*prefix) != Some(order)) {
            if let Err(error) = self.put_address(prefix, order) {
                trouble(&show_prefix(prefix), &error);
            }
        }
        self.write_macs(&after, &holders, |name| ids.get(name).copied())?;
        self.end_changes()
    }

    /// Writes the file, as the kernel's tables are now, and those of the edits and grants. Nothing is written for a gate that another command
    /// has detached. The lock of the gate is not needed, and better not held: a disk may be slow.
    ///
    /// # Errors
    /// When the file can't be written. The quarantines hold all the same, until the next reboot.
    pub fn save_quarantines(&self, place: &GatePlace) -> Result<(), GateError> {
        // each of them, whatever becomes of the others
        let (edits, grants) = (self.save_edits(place), self.save_grants(place));
        self.save_orders(place).and(edits).and(grants)
    }

    fn save_orders(&self, place: &GatePlace) -> Result<(), GateError> {
        let _lock = place.lock_saving()?;
        if !self.is_pinned_at(place)? {
            return Ok(());
        }
        if place.is_marked_unread() {
            return Err(GateError::Other {
                what: format!(
                    "{} has quarantines that could not be read or put back",
                    saved::path_of(place).display()
                ),
                why: format!(
                    "it stays as it is\nhelp: portcullis attach -i {} -p POLICY reads it again; \
                     without the file the next command writes a new one",
                    place.interface
                ),
            });
        }
        saved::write(&saved::path_of(place), &self.picture()?)
    }

    fn picture(&self) -> Result<Saved, GateError> {
        let clock = Clock::now();
        let named = self.named_orders(clock.mono_ns)?;
        let orders = self.address_orders(clock.mono_ns)?;
        let noted = self.noted_machines(clock.mono_ns)?;
        if named.is_empty() && orders.0.is_empty() {
            return Ok(Saved::default());
        }
        let holders = self.live_holders()?;
        let names = self.names_by_id()?;
        let servers = named.into_iter().map(|(id, name, order)| {
            let (addresses, except) = holders.rows_of(&name);
            let macs =
                noted.range((id, 0)..=(id, u64::MAX)).filter_map(|((_, mac), _)| from_mac_number(*mac));
            let macs = macs.map(|mac| show_mac(&mac)).collect();
            let span = Span::of(order.since_ns, order.until_ns, &clock);
            SavedServer { name, addresses, except, macs, span }
        });
        let addresses = orders.0.iter().map(|(prefix, order)| SavedAddress {
            address: *prefix,
            mac: from_mac_number(order.mac).as_ref().map(show_mac),
            server: names.get(&order.server).map(|name| (**name).to_owned()),
            span: Span::of(order.since_ns, order.until_ns, &clock),
        });
        Ok(Saved::new(servers.collect(), addresses.collect()))
    }
}

//! A switch between the router and the servers. It may flood each frame to every port, as one does that
//! knows nobody's MAC.

use super::testbed::{Cut, Namespace, Testbed, V4, V6, feed_ip};

/// Another server, at a port of its own.
pub const DATABASE_V4: &str = "192.0.2.77";
pub const DATABASE_V6: &str = "2001:db8:1::77";
pub const DATABASE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

pub struct Hub {
    switch: Namespace,
}

impl Hub {
    /// Puts one that floods into the servers' cable.
    pub fn new(testbed: &Testbed) -> Hub {
        let hub = Hub::that_learns(testbed);
        hub.switch.ip("link set hub type bridge ageing_time 0\n");
        hub
    }

    /// Puts one that learns MACs into the servers' cable.
    pub fn that_learns(testbed: &Testbed) -> Hub {
        let switch = testbed.splice(Cut::Dmz);
        // `near` still has the servers' MAC, and a bridge keeps frames to the MACs of its ports
        switch.ip("link add hub type bridge forward_delay 0 mcast_snooping 0\n\
             link set hub addrgenmode none\n\
             link set near address 02:00:00:00:01:01\n\
             link set near master hub\n\
             link set far master hub\n\
             link set hub up\n");
        Hub { switch }
    }

    /// Plugs a machine in by a NIC of this name and MAC, which is up and has no address.
    pub fn plug(&self, machine: &Namespace, nic: &str, mac: &str) {
        let tail = &mac[mac.len() - 2..];
        feed_ip(&format!(
            "link add port{tail} netns {} type veth peer name {nic} address {mac} netns {}\n",
            self.switch.name(),
            machine.name()
        ));
        self.switch.ip(&format!(
            "link set port{tail} addrgenmode none\nlink set port{tail} master hub\nlink set port{tail} up\n"
        ));
        machine.ip(&format!("link set {nic} addrgenmode none\nlink set {nic} up\n"));
    }

    /// A database server of the DMZ, whose neighbours find it as on any link. With a VLAN, they do so by a
    /// device of this name on its NIC.
    pub fn add_database(&self, testbed: &Testbed, vlan: Option<(&str, u16)>) -> Namespace {
        let machine = testbed.add_machine("db");
        self.plug(&machine, "eth0", "02:00:00:00:00:77");
        let nic = vlan.map_or("eth0", |(name, id)| {
            machine.ip(&format!(
                "link add link eth0 name {name} type vlan id {id}\n\
                 link set {name} addrgenmode none\nlink set {name} up\n"
            ));
            name
        });
        machine.ip(&format!(
            "address add {DATABASE_V4}/24 dev {nic}\naddress add {DATABASE_V6}/64 dev {nic} nodad\n\
             route add default via {}\nroute add default via {}\n",
            V4.router, V6.router
        ));
        machine
    }
}

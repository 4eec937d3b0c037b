// SPDX-License-Identifier: GPL-2.0

//! The machines of a lab, and where they are on its network.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use lab_agent::wire::PORT;

use crate::options::MAX_GUESTS;

/// One machine of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Machine {
    /// The privileged domain.
    Dom0,
    /// A guest, numbered from 1.
    Guest(u8),
}

impl Machine {
    /// Its IPv4 address on the network under test.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.host())
    }

    /// Its IPv6 address on the network under test.
    pub fn address6(self) -> std::net::Ipv6Addr {
        // Written as in the guests' boot script, where the digits are put behind "fd77::".
        let host = self.host();
        let digits = (u16::from(host / 10 % 10) << 4) | u16::from(host % 10);
        std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits)
    }

    /// Where its agent is reached from Dom0: on a network of its own, so that the traffic of the
    /// lab's control is not in the way of what is tested.
    pub(crate) fn agent(self) -> SocketAddr {
        (Ipv4Addr::new(10, 78, 0, self.host()), PORT).into()
    }

    fn host(self) -> u8 {
        match self {
            Self::Dom0 => 1,
            Self::Guest(number) => 10 + number,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dom0 => f.write_str("dom0"),
            Self::Guest(number) => write!(f, "guest{number}"),
        }
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "dom0" {
            return Ok(Self::Dom0);
        }
        text.strip_prefix("guest")
            .and_then(|number| number.parse().ok())
            .filter(|number| (1..=MAX_GUESTS).contains(number))
            .map(Self::Guest)
            .ok_or_else(|| format!("{text:?} is neither dom0 nor guest1 to guest{MAX_GUESTS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for machine in [Machine::Dom0, Machine::Guest(1), Machine::Guest(8)] {
            assert_eq!(machine.to_string().parse(), Ok(machine));
        }
        for name in ["guest0", "guest9", "guest", "Dom0", ""] {
            assert!(name.parse::<Machine>().is_err());
        }
    }

    #[test]
    fn addresses_are_those_of_the_boot_script() {
        assert_eq!(Machine::Guest(2).address().to_string(), "10.77.0.12");
        assert_eq!(Machine::Guest(2).address6().to_string(), "fd77::12");
        assert_eq!(Machine::Dom0.address6().to_string(), "fd77::1");
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What guests and the backend tell each other in Xenstore (protocol §2).
//!
//! A value is a line of `key=value` words with one space between. Keys that are not known are
//! skipped, so that later versions can add some.

use core::{
    fmt,
    net::{
        Ipv4Addr,
        Ipv6Addr, //
    },
};

use crate::error::AnnounceError as Error;
pub use crate::message::Address;

/// Bytes of a value at most.
pub const VALUE_MAX: usize = 1024;

/// Addresses of an announcement at most.
pub const ADDRESSES_MAX: usize = 32;

/// The version of the protocol that is spoken, also on the channel.
pub const VERSION: u32 = crate::wire::VERSION as u32;

/// What a guest says of itself, in `data/xenvmc/announce`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// Version of the protocol.
    pub version: u32,
    /// Feature bits; none in version 1.
    pub features: u64,
    /// Random number, other after each boot, load of the module, and resume.
    pub instance: u64,
    /// Addresses that the guest claims.
    pub addresses: Addresses,
}

impl Announcement {
    /// Reads an announcement.
    ///
    /// ```
    /// use xenvmc_core::announce::Announcement;
    ///
    /// let line = "version=1 features=0x0 instance=00000000000000ff addresses=10.0.0.1,fd00::2";
    /// let announcement = Announcement::parse(line.as_bytes()).unwrap();
    /// assert_eq!(announcement.instance, 255);
    /// assert_eq!(announcement.to_string(), line);
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error`], if it is not well formed.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        let [version, features, instance, addresses] =
            words(value, ["version", "features", "instance", "addresses"])?;
        Ok(Self {
            version: decimal(version.ok_or(Error::Missing)?)?,
            features: prefixed(features.ok_or(Error::Missing)?)?,
            instance: sixteen(instance.ok_or(Error::Missing)?)?,
            addresses: Addresses::parse(addresses.ok_or(Error::Missing)?)?,
        })
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "version={} features={:#x} instance={:016x} addresses={}",
            self.version, self.features, self.instance, self.addresses
        )
    }
}

/// What a guest says to one peer, in `data/xenvmc/offers/<peer>`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    /// In an offer, the instance of the peer's announcement; in an answer, that of the offer.
    pub to: u64,
    /// Random number of this end of the channel, as in the root page.
    pub instance: u64,
    /// Grant of the root page.
    pub root: u32,
    /// Event channel port to bind to; in an offer, not in an answer.
    pub port: Option<u32>,
}

impl Offer {
    /// Reads an offer or an answer.
    ///
    /// ```
    /// use xenvmc_core::announce::Offer;
    ///
    /// let line = "for=0000000000000001 instance=0000000000000002 root=9 port=17";
    /// let offer = Offer::parse(line.as_bytes()).unwrap();
    /// assert_eq!(offer.port, Some(17));
    /// assert_eq!(offer.to_string(), line);
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error`], if it is not well formed.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        let [to, instance, root, port] = words(value, ["for", "instance", "root", "port"])?;
        Ok(Self {
            to: sixteen(to.ok_or(Error::Missing)?)?,
            instance: sixteen(instance.ok_or(Error::Missing)?)?,
            root: decimal(root.ok_or(Error::Missing)?)?,
            port: port.map(decimal).transpose()?,
        })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "for={:016x} instance={:016x} root={}",
            self.to, self.instance, self.root
        )?;
        match self.port {
            Some(port) => write!(f, " port={port}"),
            None => Ok(()),
        }
    }
}

/// What the backend says of itself to a guest, in `xenvmc/backend`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Version of the protocol.
    pub version: u32,
    /// Random number, other after each load of the module.
    pub instance: u64,
}

impl Backend {
    /// Reads it.
    ///
    /// ```
    /// use xenvmc_core::announce::Backend;
    ///
    /// let backend = Backend::parse(b"version=1 instance=000000000000000a news=no").unwrap();
    /// assert_eq!(backend.to_string(), "version=1 instance=000000000000000a");
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error`], if it is not well formed.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        let [version, instance] = words(value, ["version", "instance"])?;
        Ok(Self {
            version: decimal(version.ok_or(Error::Missing)?)?,
            instance: sixteen(instance.ok_or(Error::Missing)?)?,
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "version={} instance={:016x}",
            self.version, self.instance
        )
    }
}

/// A set of up to [`ADDRESSES_MAX`] addresses, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Addresses {
    addresses: [Option<Address>; ADDRESSES_MAX],
}

impl Addresses {
    /// No address.
    pub const fn new() -> Self {
        Self {
            addresses: [None; ADDRESSES_MAX],
        }
    }

    /// Adds an address.
    ///
    /// ```
    /// use xenvmc_core::announce::{Address, Addresses};
    ///
    /// let mut addresses = Addresses::new();
    /// addresses.add(Address::V4([10, 0, 0, 1])).unwrap();
    /// assert!(addresses.add(Address::V4([10, 0, 0, 1])).is_err());
    /// assert!(addresses.add(Address::V4([127, 0, 0, 1])).is_err());
    /// assert!(addresses.contains(Address::V4([10, 0, 0, 1])));
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Address`] if it is there already, or no single interface can have it;
    /// [`Error::TooMany`] if there is no room.
    pub fn add(&mut self, address: Address) -> Result<(), Error> {
        if !address.is_claimable() || self.contains(address) {
            return Err(Error::Address);
        }
        let place = self.addresses.iter_mut().find(|a| a.is_none());
        *place.ok_or(Error::TooMany)? = Some(address);
        Ok(())
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: Address) -> bool {
        self.iter().any(|a| a == address)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Address> + '_ {
        self.addresses.iter().copied().flatten()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn parse(list: &str) -> Result<Self, Error> {
        let mut addresses = Self::new();
        if list.is_empty() {
            return Ok(addresses);
        }
        for word in list.split(',') {
            addresses.add(Address::parse(word)?)?;
        }
        Ok(addresses)
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

/// The same addresses, in whatever order.
impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        self.iter().count() == other.iter().count() && self.iter().all(|a| other.contains(a))
    }
}

impl Eq for Addresses {}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for address in self.iter() {
            write!(f, "{comma}{address}")?;
            comma = ",";
        }
        Ok(())
    }
}

impl Address {
    /// Reads an address in its usual text form.
    ///
    /// # Errors
    ///
    /// [`Error::Address`], if it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Ok(Address::V4(v4.octets()));
        }
        match text.parse::<Ipv6Addr>() {
            Ok(v6) => Ok(Address::V6(v6.octets())),
            Err(_) => Err(Error::Address),
        }
    }

    /// Whether a guest can have it on an interface of its own, and a peer connect to it.
    ///
    /// Not so: unspecified, loopback, multicast, broadcast, IPv6 link-local (it has no meaning
    /// without an interface) and IPv4 in IPv6.
    pub fn is_claimable(&self) -> bool {
        match *self {
            Address::V4(octets) => {
                let v4 = Ipv4Addr::from(octets);
                let [first, ..] = octets;
                !v4.is_loopback() && first != 0 && first < 224
            }
            Address::V6(octets) => {
                let v6 = Ipv6Addr::from(octets);
                let [first, second, ..] = octets;
                let link_local = first == 0xfe && second & 0xc0 == 0x80;
                let multicast = first == 0xff;
                let other =
                    v6.is_unspecified() || v6.is_loopback() || v6.to_ipv4_mapped().is_some();
                !(link_local || multicast || other)
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Address::V4(octets) => Ipv4Addr::from(octets).fmt(f),
            Address::V6(octets) => Ipv6Addr::from(octets).fmt(f),
        }
    }
}

/// The values of `keys` in the line, in the same order.
fn words<'a, const N: usize>(
    value: &'a [u8],
    keys: [&str; N],
) -> Result<[Option<&'a str>; N], Error> {
    if value.len() > VALUE_MAX {
        return Err(Error::Long);
    }
    if !value.iter().all(|b| (0x20..0x7f).contains(b)) {
        return Err(Error::Syntax);
    }
    let line = core::str::from_utf8(value).map_err(|_| Error::Syntax)?;
    let mut found = [None; N];
    for word in line.split(' ') {
        let (key, value) = word.split_once('=').ok_or(Error::Syntax)?;
        if key.is_empty() {
            return Err(Error::Syntax);
        }
        let known = keys.iter().zip(&mut found).find(|(k, _)| **k == key);
        if let Some((_, place)) = known {
            if place.replace(value).is_some() {
                return Err(Error::Duplicate);
            }
        }
    }
    Ok(found)
}

/// A decimal number of 32 bits: digits only, no sign, no leading zero.
fn decimal(text: &str) -> Result<u32, Error> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(Error::Number);
    }
    text.parse().map_err(|_| Error::Number)
}

/// A hexadecimal number of 64 bits, after `0x`.
fn prefixed(text: &str) -> Result<u64, Error> {
    let digits = text.strip_prefix("0x").ok_or(Error::Number)?;
    hexadecimal(digits)
}

/// A number of 64 bits, as exactly 16 lower-case hexadecimal digits.
fn sixteen(text: &str) -> Result<u64, Error> {
    if text.len() != 16 {
        return Err(Error::Number);
    }
    hexadecimal(text)
}

fn hexadecimal(digits: &str) -> Result<u64, Error> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !digits.bytes().all(lower) {
        return Err(Error::Number);
    }
    u64::from_str_radix(digits, 16).map_err(|_| Error::Number)
}

// SPDX-License-Identifier: GPL-2.0

//! Why a connection is not accelerated, or no longer: each reason has a number (protocol §8).
//!
//! The numbers are stable: they are on the wire, in the counters and in what users write down. New
//! reasons get new numbers, old ones are never used for something else.

macro_rules! declines {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $tell:ident;)*) => {
        /// Why a connection stays on, or went back to, plain TCP.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[repr(u32)]
        pub enum Decline {
            $($(#[$doc])* $variant = $code,)*
        }

        impl Decline {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Decline] = &[$(Decline::$variant,)*];

            /// The name under which it is counted.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Decline::$variant => $name,)*
                }
            }

            /// What may be told to a peer; [`Decline::Other`] for what is nobody's business.
            pub const fn told(self) -> Decline {
                match self {
                    $(Decline::$variant => declines!(@ $tell $variant),)*
                }
            }
        }

        impl TryFrom<u32> for Decline {
            type Error = u32;

            fn try_from(code: u32) -> Result<Self, u32> {
                match code {
                    $($code => Ok(Decline::$variant),)*
                    raw => Err(raw),
                }
            }
        }
    };
    (@ tell $variant:ident) => { Decline::$variant };
    (@ keep $variant:ident) => { Decline::Other };
}

declines! {
    /// None of the others, or one that is not told.
    Other = 0, "other", tell;
    /// The module parameter `enabled` is off, here.
    Disabled = 1, "disabled", tell;
    /// The module is being unloaded, or the guest suspended.
    Stopping = 2, "stopping", tell;
    /// The remote address is not that of a known peer.
    NotCoResident = 3, "not-co-resident", keep;
    /// The channel to the peer is not open yet.
    NoChannel = 4, "no-channel", keep;
    /// The channel to the peer is broken, or being closed.
    ChannelClosed = 5, "channel-closed", keep;
    /// The peer speaks no version of the protocol that we speak.
    Version = 6, "version", keep;
    /// The peer refused; its own reason is counted as well.
    PeerRefused = 7, "peer-refused", keep;
    /// There is no such connection here, *or* the proof was wrong: it is the same to a liar.
    NoSuchSocket = 8, "no-such-socket", tell;
    /// The responder's proof was wrong: the peer's claim of that address is not believed any more.
    WrongProof = 9, "wrong-proof", keep;
    /// The peer's claim of that address was found false before, and is not tried for now.
    Distrusted = 10, "distrusted", keep;
    /// Both sides asked at once, and the other request goes on.
    Crossing = 11, "crossing", tell;
    /// The connection is accelerated already, or has ended its acceleration.
    Duplicate = 12, "duplicate", tell;
    /// As many connections as a channel can have.
    SlotsExhausted = 13, "slots-exhausted", tell;
    /// The arena is as large as it may get, and full.
    ArenaExhausted = 14, "arena-exhausted", tell;
    /// The guest had no memory.
    NoMemory = 15, "no-memory", tell;
    /// The control queue is full.
    QueueFull = 16, "queue-full", keep;
    /// The policy does not find it worth while yet.
    Policy = 17, "policy", keep;
    /// Datagrams: the peer has not shown yet that the address is its own.
    NotProven = 18, "not-proven", tell;
    /// Datagrams: none of the flow has come over the network yet.
    NotSeen = 19, "not-seen", tell;

    /// The socket belongs to the kernel.
    KernelSocket = 32, "kernel-socket", tell;
    /// The socket has a handler of an upper protocol (kTLS and its like).
    Ulp = 33, "ulp", tell;
    /// The socket is, or was to be, in a sockmap.
    Sockmap = 34, "sockmap", tell;
    /// Segments are signed (TCP-MD5 or TCP-AO).
    Signed = 35, "signed", tell;
    /// The socket is in repair mode.
    Repair = 36, "repair", tell;
    /// The socket asks for a pacing rate.
    Pacing = 37, "pacing", tell;
    /// The socket, or its namespace, has an IPsec policy.
    Ipsec = 38, "ipsec", tell;
    /// A BPF program of a control group looks at packets.
    CgroupBpf = 39, "cgroup-bpf", tell;
    /// The socket has a packet filter.
    SocketFilter = 40, "socket-filter", tell;
    /// The route does not leave through a device of netfront.
    Route = 41, "route", tell;
    /// Somebody replaced the socket's callbacks.
    Callbacks = 42, "callbacks", tell;
    /// Somebody replaced the socket's protocol methods.
    Methods = 43, "methods", tell;
    /// Multipath TCP.
    Mptcp = 44, "mptcp", tell;
    /// The namespace is not one in which the peer's addresses mean anything.
    Namespace = 45, "namespace", tell;
    /// IPv6, where it is not supported.
    Ipv6 = 46, "ipv6", tell;
    /// Stamps of packets are asked for.
    Timestamps = 47, "timestamps", tell;
    /// Zero-copy completions or mappings are asked for.
    Zerocopy = 48, "zerocopy", tell;
    /// Urgent data was sent or received.
    Urgent = 49, "urgent", tell;
    /// An option was set that the ring cannot express.
    Option = 50, "option", tell;
    /// The connection is not established, or no longer.
    State = 51, "state", tell;
    /// A reader could still be inside the old functions.
    StaleReader = 52, "stale-reader", tell;
    /// A reader was inside the old functions after the switch: the connection was reset.
    RogueReader = 53, "rogue-reader", keep;
    /// Bytes are corked, or not sent yet.
    Corked = 54, "corked", keep;
    /// The log of records is full.
    LogFull = 55, "log-full", keep;
    /// A security module or an audit rule wants to see packets.
    Security = 56, "security", tell;
    /// The socket's protocol is not plain TCP.
    Protocol = 57, "protocol", tell;
    /// A splice or another reader of TCP's own queue is at work.
    ForeignReader = 58, "foreign-reader", tell;
    /// The application disconnected the socket for another use.
    Disconnected = 59, "disconnected", keep;
    /// Nobody reads, and TCP_USER_TIMEOUT is set: TCP's clock is to run.
    Stalled = 60, "stalled", keep;

    /// The running kernel lacks what this needs.
    Kernel = 96, "kernel", tell;
    /// The peer broke the protocol.
    Broken = 97, "broken", keep;
    /// The peer is gone.
    PeerLost = 98, "peer-lost", keep;
    /// The peer asked to go back to TCP.
    PeerReturned = 99, "peer-returned", keep;
    /// The user asked for it.
    User = 100, "user", tell;
}

impl Decline {
    /// Number of reasons, for tables of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// The number.
    ///
    /// ```
    /// use xenvmc_core::Decline;
    ///
    /// assert_eq!(Decline::NoSuchSocket.code(), 8);
    /// assert_eq!(Decline::try_from(8), Ok(Decline::NoSuchSocket));
    /// assert_eq!(Decline::try_from(31), Err(31));
    /// ```
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The place in [`Self::ALL`], less than [`Self::COUNT`], for tables of counters.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|&d| d == self).unwrap_or(0)
    }
}

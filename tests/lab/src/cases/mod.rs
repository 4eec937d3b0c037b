// SPDX-License-Identifier: GPL-2.0

//! The tests, in the order in which they run.

mod addresses;
mod bound;
mod closing;
mod conformance;
mod cost;
mod datagrams;
mod destroy;
mod discovery;
mod existing;
mod fallback;
mod faults;
mod hosts;
mod integrity;
mod lab;
mod leaks;
mod many;
mod migration;
mod peers;
mod process;
mod programs;
mod soak;
mod suspend;
mod unload;

pub(crate) use many::COUNT as MANY;
pub(crate) use programs::PACKAGES;

use anyhow::Result;

use lab_driver::GuestType;

use crate::{bench::Bench, suite::Setting};

/// One test.
pub(crate) struct Case {
    /// Its name: the file's and the function's.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Bench) -> Result<()>,
    /// Which guests have it.
    pub(crate) wanted: Wanted,
}

/// Which guests have a test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// PVH guests.
    Pvh,
    /// Paravirtual ones as well.
    Pv,
    /// PVH guests, if its name is asked for: it takes minutes.
    Long,
    /// PVH guests and paravirtual ones, likewise.
    LongPv,
    /// PVH guests with the packages of [`programs`], if its name is asked for.
    Packages,
    /// PVH guests on one of two hosts, if its name is asked for.
    Hosts,
    /// Many PVH guests, if its name is asked for.
    Many,
    /// Those with the debug kernel only, and whatever tests are chosen.
    Debug,
}

impl Case {
    /// Whether it runs only when its name is asked for.
    pub(crate) fn is_long(&self) -> bool {
        matches!(
            self.wanted,
            Wanted::Long | Wanted::LongPv | Wanted::Hosts | Wanted::Many | Wanted::Packages
        )
    }

    /// Whether these guests have it.
    pub(crate) fn runs_in(&self, setting: Setting) -> bool {
        match setting {
            Setting::Plain(GuestType::Pvh) | Setting::TwoCpus => {
                let short = matches!(self.wanted, Wanted::Pvh | Wanted::Pv);
                short || matches!(self.wanted, Wanted::Long | Wanted::LongPv)
            }
            Setting::Plain(GuestType::Pv) => matches!(self.wanted, Wanted::Pv | Wanted::LongPv),
            Setting::Packages => self.wanted == Wanted::Packages,
            Setting::Hosts => self.wanted == Wanted::Hosts,
            Setting::Many => self.wanted == Wanted::Many,
            Setting::Debug => {
                !matches!(self.wanted, Wanted::Packages | Wanted::Hosts | Wanted::Many)
            }
        }
    }
}

/// A list of tests from functions; `pv` marks those that paravirtual guests have as well, `packages` those that need programs,
/// `hosts` those that need two hosts, `many` those that need many guests, `debug` those that only the debug kernel can have, `long` those that run only when they are asked for, `long_pv` such that
/// paravirtual guests have as well.
macro_rules! cases {
    ($($module:ident::$name:ident $($mark:ident)?,)*) => {
        &[$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $module::$name,
            wanted: cases!(@ $($mark)?),
        },)*]
    };
    (@) => { Wanted::Pvh };
    (@ pv) => { Wanted::Pv };
    (@ packages) => { Wanted::Packages };
    (@ long) => { Wanted::Long };
    (@ long_pv) => { Wanted::LongPv };
    (@ hosts) => { Wanted::Hosts };
    (@ many) => { Wanted::Many };
    (@ debug) => { Wanted::Debug };
}

/// All tests.
pub(crate) const ALL: &[Case] = cases![
    lab::command_line,
    integrity::both_ways_blocking pv,
    integrity::both_ways_poll,
    integrity::both_ways_select,
    integrity::both_ways_epoll_level,
    integrity::both_ways_epoll_edge,
    integrity::both_ways_epoll_edge_short,
    integrity::both_ways_epoll_edge_asked,
    integrity::all_calls,
    integrity::vectors,
    integrity::sendfile,
    integrity::splice,
    integrity::peek,
    integrity::wait_all,
    integrity::small_messages,
    integrity::much_before_reading,
    integrity::both_ask_at_once,
    integrity::many_connections,
    integrity::sent_before_channel,
    integrity::one_large_call,
    integrity::thousands_of_changes,
    closing::half_close_connecting_first,
    closing::half_close_accepting_first,
    closing::half_close_both_at_once,
    closing::poll_sees_the_end,
    closing::reset_behind_data,
    closing::close_with_unread_data,
    closing::close_wakes_sender,
    closing::send_to_closed,
    closing::shutdown_wakes_own_calls,
    closing::timeouts,
    closing::peer_is_paused_for_too_long,
    closing::unread_is_counted,
    closing::shut_down_at_both_ends,
    closing::report_forgets_the_closed,
    process::killed_sender,
    process::killed_sender_at_work,
    process::killed_receiver,
    process::killed_both,
    process::interrupted_receiver,
    process::interrupted_sender,
    process::signals_under_load,
    discovery::frontends_first pv,
    discovery::backend_first,
    discovery::backend_between,
    discovery::backend_comes_and_goes,
    discovery::frontend_comes_and_goes,
    discovery::address_changes,
    discovery::groups,
    discovery::malformed_announcements,
    discovery::backend_of_another_version,
    existing::idle,
    existing::busy,
    existing::sleeping_readers,
    existing::sleepers_of_all_kinds,
    existing::sleepers_on_the_ring,
    existing::one_end_later,
    existing::reloaded,
    existing::left_alone,
    existing::unread_bytes,
    existing::unread_bytes_read_first,
    existing::half_closed,
    existing::not_accepted_yet,
    existing::sleeping_writers,
    fallback::peer_without_module,
    fallback::disabled,
    fallback::refused_at_first,
    fallback::ineligible,
    fallback::given_back,
    fallback::disabled_later,
    fallback::arena_exhausted,
    addresses::second_interface,
    addresses::out_of_a_namespace,
    addresses::into_a_namespace,
    addresses::interface_of_a_namespace,
    addresses::translated_in_dom0,
    addresses::interface_comes_and_goes,
    addresses::moves_to_another_machine,
    bound::at_either_end,
    bound::in_a_virtual_router,
    bound::where_packets_arrive,
    bound::same_addresses_and_ports,
    unload::under_load_connecting_side pv,
    unload::under_load_accepting_side,
    unload::under_load_both_sides,
    unload::disabled_first,
    unload::beside_calls_that_hang,
    unload::blocked_receivers,
    unload::unread_between_bytes_of_tcp,
    unload::unread_bytes,
    unload::closed_by_the_other_end,
    unload::urgent_byte,
    conformance::calls,
    conformance::blocking,
    conformance::volumes,
    conformance::taken_both_ways,
    conformance::round_trips,
    conformance::million_round_trips long,
    conformance::readiness,
    conformance::ends,
    conformance::descriptors,
    conformance::options,
    conformance::addresses,
    conformance::datagrams,
    conformance::over_ipv6 long,
    cost::idle_rings_shrink,
    cost::thousand_connections long,
    suspend::saved_and_restored long_pv,
    suspend::checkpoint long_pv,
    suspend::migrated_to_itself long,
    suspend::migration_fails long,
    suspend::both_saved,
    suspend::both_copied_at_once long,
    suspend::saved_while_idle_readers_sleep long,
    suspend::saved_with_unread_bytes,
    suspend::leaves_nothing long,
    peers::paused long,
    peers::paused_while_the_other_is_suspended long,
    peers::comes_again long,
    peers::number_comes_again long,
    peers::unloaded_while_suspended long,
    peers::offer_without_answer long,
    peers::another_version,
    peers::xenstored_comes_anew,
    faults::offering_guest long,
    faults::answering_guest long,
    faults::at_unload long,
    faults::all_the_time long,
    faults::suspended long,
    faults::backend long,
    faults::backend_at_unload long,
    faults::backend_writes_to_a_guest_that_is_gone long,
    faults::backend_all_the_time long,
    soak::at_random long_pv,
    datagrams::round_trips,
    datagrams::round_trips_ipv6,
    datagrams::flows_come_and_go,
    datagrams::segments,
    datagrams::segments_in_one,
    datagrams::nobody_listens,
    datagrams::receiver_filters,
    datagrams::stream_enters_the_ring,
    datagrams::either_may_begin,
    datagrams::receiver_filters_from_the_beginning,
    datagrams::dom0_filters,
    datagrams::dom0_filters_from_the_beginning,
    datagrams::dom0_tracks,
    datagrams::sender_filters,
    datagrams::sender_filters_from_the_beginning,
    datagrams::sender_filters_at_its_device,
    datagrams::conntracked,
    datagrams::false_address,
    datagrams::false_address_ipv6,
    datagrams::false_source,
    datagrams::false_source_ipv6,
    datagrams::peer_without,
    datagrams::sender_is_unloaded,
    datagrams::receiver_is_unloaded,
    datagrams::unloaded_between_round_trips,
    datagrams::nothing_lost_at_entry,
    datagrams::nothing_lost_at_expiry,
    datagrams::nothing_lost_at_unload,
    datagrams::network_in_bursts long,
    datagrams::full_ring,
    datagrams::full_ring_blocks,
    datagrams::full_ring_times_out,
    datagrams::receive_buffer_is_full,
    datagrams::multicast,
    datagrams::broadcast,
    datagrams::udp_lite,
    datagrams::left_alone,
    datagrams::socket_filter,
    datagrams::saved_and_restored long,
    datagrams::suspended_under_load long,
    datagrams::peer_disappears long,
    migration::returns long,
    migration::standstill long,
    leaks::nothing_is_left,
    leaks::nothing_is_unreferenced debug,
    destroy::guest_with_connections,
    hosts::apart_and_together hosts,
    addresses::moves_to_a_third_guest many,
    many::all_pairs many,
    many::come_and_go many,
    programs::iperf3 packages,
    programs::iperf3_udp packages,
    programs::dns packages,
    programs::quic packages,
    programs::memcached packages,
    programs::nginx packages,
    programs::ssh packages,
    programs::go packages,
    programs::asyncio packages,
    programs::node packages,
    programs::nfs packages,
];

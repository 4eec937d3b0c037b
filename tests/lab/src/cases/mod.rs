// SPDX-License-Identifier: GPL-2.0

//! The tests, in the order in which they run.

mod closing;
mod destroy;
mod discovery;
mod fallback;
mod integrity;
mod leaks;
mod process;
mod unload;

use anyhow::Result;

use crate::bench::Bench;

/// One test.
pub(crate) struct Case {
    /// Its name: the file's and the function's.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Bench) -> Result<()>,
    /// Whether paravirtual guests have it as well.
    pub(crate) on_pv: bool,
}

/// A list of tests from functions; `pv` marks those that paravirtual guests have as well.
macro_rules! cases {
    ($($module:ident::$name:ident $($pv:ident)?,)*) => {
        &[$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $module::$name,
            on_pv: cases!(@ $($pv)?),
        },)*]
    };
    (@) => { false };
    (@ pv) => { true };
}

/// All tests.
pub(crate) const ALL: &[Case] = cases![
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
    integrity::both_ask_at_once,
    integrity::many_connections,
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
    closing::unread_is_counted,
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
    fallback::peer_without_module,
    fallback::disabled,
    fallback::ineligible,
    fallback::given_back,
    fallback::disabled_later,
    fallback::arena_exhausted,
    unload::under_load_connecting_side pv,
    unload::under_load_accepting_side,
    unload::under_load_both_sides,
    unload::blocked_receivers,
    unload::unread_bytes,
    leaks::nothing_is_left,
    destroy::guest_with_connections,
];

// SPDX-License-Identifier: GPL-2.0

//! What the socket layer calls: the methods of a socket that was taken over, each handed to who does it.

use crate::giveback;
use crate::handover;
use crate::receive;
use crate::stream::{
    Phase,
    Sender,
    Stream, //
};
use crate::transmit;
use crate::unread;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Relaxed,
    Release, //
};
use kernel::sync::Arc;
use xenvmc_core::connection::State;
use xenvmc_core::wire;
use xenvmc_net::{
    Adopted,
    Connection,
    Flags,
    Guard,
    Message,
    Shutdown, //
};

impl Connection for Stream {
    type Locked = Sender;

    fn sendmsg(this: &Arc<Adopted<Self>>, message: &mut Message<'_>) -> Result<usize> {
        transmit::send(this, message)
    }

    fn recvmsg(
        this: &Arc<Adopted<Self>>,
        message: &mut Message<'_>,
        flags: Flags,
    ) -> Result<usize> {
        receive::receive(this, message, flags)
    }

    fn is_readable(this: &Adopted<Self>) -> bool {
        this.phase() == Phase::Active && unread::is_readable(this)
    }

    fn has_space(this: &Adopted<Self>) -> Option<bool> {
        if this.sends_to_ring.load(Acquire) {
            transmit::has_space(this)
        } else {
            None
        }
    }

    fn unread(this: &Adopted<Self>) -> usize {
        unread::unread(this)
    }

    fn unsent(this: &Adopted<Self>) -> usize {
        transmit::unsent(this)
    }

    fn releasing(guard: &mut Guard<'_, Self>) {
        if guard.adopted().sends_to_ring.load(Relaxed) {
            transmit::watch_tcp(guard);
        }
        handover::check(guard.adopted());
    }

    fn shutting_down(guard: &mut Guard<'_, Self>, how: Shutdown) {
        if how.send() {
            transmit::end(guard);
        }
        if guard.socket().shutdown().with(how).is_full() {
            // What comes now TCP answers with a reset, so it is to come over TCP.
            if let Some(link) = &guard.state().link {
                link.set_receive_flags(wire::RX_RETURN);
                link.post();
            }
        }
    }

    fn closing(this: &Arc<Adopted<Self>>) {
        if this.phase() != Phase::Active {
            let mut guard = this.lock();
            // With the socket locked it may turn out to have become active only now.
            if this.phase() != Phase::Active {
                // A connection that never came to the ring needs us no more.
                if this.is_free() {
                    guard.restore_at_close();
                }
                return;
            }
        }
        receive::close(this);
        transmit::end(&mut this.lock());
    }

    fn wants_tcp(level: i32, name: i32) -> bool {
        giveback::wants_tcp(level, name)
    }

    fn option(this: &Arc<Adopted<Self>>, level: i32, name: i32) {
        giveback::before_option(this, level, name);
    }

    fn may_enter_sockmap(guard: &mut Guard<'_, Self>) -> bool {
        giveback::leave_now(guard)
    }

    fn restored(guard: &mut Guard<'_, Self>) {
        let this = guard.adopted();
        this.frontend().counters().sockets_restored.inc();
        this.set_ended();
        this.sends_to_ring.store(false, Release);
        this.set_phase(Phase::Over);
        let sender = guard.state();
        if let Some(link) = &sender.link {
            link.set_receive_flags(wire::RX_GONE);
            link.post();
            link.channel().note_tending();
        } else if this.agreement().lock().state() != State::Plain {
            // It may have been about to be agreed.
            this.peer().note_tending();
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Two endpoints of one connection, and a TCP between them that delivers when it is told to.

use std::collections::VecDeque;

use xenvmc_core::{
    arena::Arena,
    segment::Mode,
    stream::{
        Inbound,
        Outbound,
        Source, //
    },
    wire::slot,
    Error,
    Extent,
    SharedLoad,
    Words, //
};

use super::{
    byte,
    HostFence,
    Slot, //
};

/// Chunks of each arena, all of them mapped by the other side.
pub(crate) const CHUNKS: u32 = 8;

/// Pages of each arena.
pub(crate) const PAGES: u32 = CHUNKS * 64;

/// One direction of a TCP connection: what was written and not yet read.
pub(crate) struct Tcp {
    bytes: VecDeque<u8>,
    pub(crate) write_seq: u32,
    pub(crate) rcv_nxt: u32,
    pub(crate) copied_seq: u32,
}

impl Tcp {
    fn new(seq: u32) -> Self {
        Self {
            bytes: VecDeque::new(),
            write_seq: seq,
            rcv_nxt: seq,
            copied_seq: seq,
        }
    }
}

/// One end: a guest's memory, and its private view of both directions.
pub(crate) struct End {
    pub(crate) slot: Slot,
    pub(crate) out: Outbound,
    pub(crate) inbound: Inbound,
    /// The TCP that carries what this end sends.
    pub(crate) tcp: Tcp,
    pub(crate) arena: Arena,
    map: [u64; CHUNKS as usize],
    memory: Vec<u8>,
    pub(crate) sent: u64,
    pub(crate) read: u64,
    /// The reader sleeps: only a notice, or bytes that TCP delivers, may wake it.
    pub(crate) reader_asleep: bool,
    /// The writer sleeps, until so many bytes are free.
    pub(crate) writer_asleep: Option<u32>,
    pub(crate) notices: u64,
}

impl End {
    fn new(tx: u32, rx: u32, seq: u32) -> Self {
        let mut arena = Arena::new(CHUNKS);
        arena.grow(CHUNKS).unwrap();
        arena.handle_mapped(CHUNKS).unwrap();
        Self {
            slot: Slot::new(tx, rx),
            out: Outbound::starting_at(tx),
            inbound: Inbound::starting_at(rx),
            tcp: Tcp::new(seq),
            arena,
            map: [0; CHUNKS as usize],
            memory: vec![0xaa; (PAGES * 4096) as usize],
            sent: 0,
            read: 0,
            reader_asleep: false,
            writer_asleep: None,
            notices: 0,
        }
    }

    /// Publishes, and wakes whoever sleeps at this end if that made room.
    fn publish(&mut self, peer: &Slot) -> Result<bool, Error> {
        let settled = self.out.is_settled();
        let notice = self.out.publish(&self.slot, peer)?;
        if !settled && self.out.is_settled() {
            self.writer_asleep = None;
        }
        Ok(notice)
    }

    fn write_tcp(&mut self, len: u32) {
        for _ in 0..len {
            self.tcp.bytes.push_back(byte(self.sent));
            self.sent += 1;
        }
        self.tcp.write_seq = self.tcp.write_seq.wrapping_add(len);
    }
}

/// What an end can do next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// The application sends.
    Send(u32),
    /// Somebody sends through TCP's own function.
    Rogue(u32),
    /// Go to a ring of this order, or to a larger or smaller one.
    Enter(u8),
    /// Go back to the ring that was left last, if it is still ours.
    Reenter,
    /// Go to TCP.
    Leave,
    /// The network delivers up to so many bytes that this end sent.
    Deliver(u32),
    /// The application reads; sleeps if there is nothing.
    Read(u32),
    /// The application looks at what it would read.
    Peek(u32),
    /// Take extents back.
    Free,
    /// The writer wants room.
    WaitRoom(u32),
}

/// Both ends.
pub(crate) struct Pair {
    pub(crate) ends: [End; 2],
    last: [Option<Extent>; 2],
}

impl Pair {
    /// `ring` and `seq`: where the indices and sequence numbers of the two directions start.
    pub(crate) fn new(ring: [u32; 2], seq: [u32; 2]) -> Self {
        Self {
            ends: [
                End::new(ring[0], ring[1], seq[0]),
                End::new(ring[1], ring[0], seq[1]),
            ],
            last: [None; 2],
        }
    }

    fn split(&mut self, side: usize) -> (&mut End, &mut End) {
        let (a, b) = self.ends.split_at_mut(1);
        match side {
            0 => (&mut a[0], &mut b[0]),
            _ => (&mut b[0], &mut a[0]),
        }
    }

    /// What the notice handler of the other end does.
    fn notice(&mut self, side: usize, notice: bool) {
        if notice {
            let other = &mut self.ends[1 - side];
            other.notices += 1;
            other.reader_asleep = false;
            other.writer_asleep = None;
        }
    }

    /// Does one thing at one end.
    pub(crate) fn step(&mut self, side: usize, op: Op) -> Result<(), Error> {
        match op {
            Op::Send(len) => self.send(side, len)?,
            Op::Rogue(len) => {
                let (me, peer) = self.split(side);
                me.write_tcp(len);
                me.out.rogue(me.tcp.write_seq);
                let notice = me.publish(&peer.slot)?;
                self.notice(side, notice);
            }
            Op::Enter(order) => self.enter(side, order)?,
            Op::Reenter => {
                if let Some(extent) = self.last[side] {
                    self.enter_extent(side, extent)?;
                }
            }
            Op::Leave => {
                let (me, peer) = self.split(side);
                me.out.leave_ring();
                let notice = me.publish(&peer.slot)?;
                self.notice(side, notice);
            }
            Op::Deliver(len) => {
                let (me, peer) = self.split(side);
                let flying = me.tcp.write_seq.wrapping_sub(me.tcp.rcv_nxt);
                let len = len.min(flying);
                me.tcp.rcv_nxt = me.tcp.rcv_nxt.wrapping_add(len);
                peer.reader_asleep &= len == 0;
            }
            Op::Read(len) => {
                self.read(side, len)?;
            }
            Op::Peek(len) => self.peek(side, len)?,
            Op::Free => self.free(side)?,
            Op::WaitRoom(want) => {
                let (me, peer) = self.split(side);
                let notice = me.publish(&peer.slot)?;
                if let Mode::Ring { extent, .. } = me.out.mode() {
                    let want = want.clamp(1, extent.bytes());
                    let armed = me.out.arm::<HostFence, _, _>(want, &me.slot, &peer.slot)?;
                    me.writer_asleep = armed.then_some(want);
                }
                self.notice(side, notice);
            }
        }
        self.check_sleepers()
    }

    fn send(&mut self, side: usize, len: u32) -> Result<(), Error> {
        let (me, peer) = self.split(side);
        let mut notice = me.publish(&peer.slot)?;
        match me.out.mode() {
            Mode::Tcp => me.write_tcp(len),
            Mode::Ring { extent, .. } => {
                let len = me.out.room(&peer.slot)?.min(len);
                let base = extent.page() as usize * 4096;
                for span in me.out.spans(len) {
                    assert!(span.in_page() + span.len <= 4096);
                    for at in span.offset..span.offset + span.len {
                        me.memory[base + at as usize] = byte(me.sent);
                        me.sent += 1;
                    }
                }
                if len > 0 {
                    notice |= me.out.commit::<HostFence, _, _>(len, &me.slot, &peer.slot);
                }
            }
        }
        self.notice(side, notice);
        Ok(())
    }

    fn enter(&mut self, side: usize, order: u8) -> Result<(), Error> {
        self.free(side)?;
        let end = &mut self.ends[side];
        if let Ok(extent) = end.arena.allocate(&mut end.map, order) {
            self.enter_extent(side, extent)?;
        }
        Ok(())
    }

    fn enter_extent(&mut self, side: usize, extent: Extent) -> Result<(), Error> {
        let (me, peer) = self.split(side);
        let seq = match me.out.mode() {
            Mode::Tcp => me.tcp.write_seq,
            Mode::Ring { seq, .. } => seq,
        };
        if me.out.enter_ring(extent, seq).is_err() {
            me.arena.free(&mut me.map, extent).unwrap();
            return Ok(());
        }
        let notice = me.publish(&peer.slot)?;
        // Whoever sleeps at this end is woken by this end itself.
        me.writer_asleep = None;
        self.last[side] = Some(extent);
        self.notice(side, notice);
        Ok(())
    }

    /// Takes extents back, and overwrites them, so that a late reader is found out.
    fn free(&mut self, side: usize) -> Result<(), Error> {
        let last = self.last[side];
        let (me, peer) = self.split(side);
        let mut forget = false;
        while let Some(extent) = me.out.poll_free(&peer.slot)? {
            forget |= last == Some(extent);
            let base = extent.page() as usize * 4096;
            me.memory[base..base + extent.bytes() as usize].fill(0x55);
            me.arena.free(&mut me.map, extent).unwrap();
        }
        if forget {
            self.last[side] = None;
        }
        Ok(())
    }

    /// Reads up to `len` bytes, checks each, and goes to sleep if there was nothing.
    pub(crate) fn read(&mut self, side: usize, len: u32) -> Result<u32, Error> {
        let (me, peer) = self.split(side);
        let mut left = len;
        loop {
            let rcv_nxt = peer.tcp.rcv_nxt;
            let copied = peer.tcp.copied_seq;
            let source = me.inbound.look(&peer.slot, PAGES, copied, rcv_nxt)?;
            let n = source.bytes().min(left);
            if n == 0 {
                break;
            }
            left -= n;
            match source {
                Source::Tcp(_) => {
                    for got in peer.tcp.bytes.drain(..n as usize) {
                        assert_eq!(got, byte(me.read), "byte {} of TCP", me.read);
                        me.read += 1;
                    }
                    peer.tcp.copied_seq = copied.wrapping_add(n);
                }
                Source::Ring { extent, .. } => {
                    assert!(extent.fits(PAGES));
                    let base = extent.page() as usize * 4096;
                    for span in me.inbound.spans(extent, n) {
                        for at in span.offset..span.offset + span.len {
                            let got = peer.memory[base + at as usize];
                            assert_eq!(got, byte(me.read), "byte {} of the ring", me.read);
                            me.read += 1;
                        }
                    }
                    me.inbound.consume(n);
                }
            }
        }
        let notice = me.inbound.publish::<HostFence, _, _>(&me.slot, &peer.slot);
        if left == len && len > 0 {
            me.reader_asleep = me.inbound.arm::<HostFence, _, _>(&me.slot, &peer.slot);
        }
        self.notice(side, notice);
        Ok(len - left)
    }

    /// Looks ahead with a copy of the reader's end; nothing may change.
    fn peek(&mut self, side: usize, len: u32) -> Result<(), Error> {
        let (me, peer) = self.split(side);
        let mut ahead = me.inbound.clone();
        let mut copied = peer.tcp.copied_seq;
        let (mut left, mut at) = (len, me.read);
        loop {
            let source = ahead.look(&peer.slot, PAGES, copied, peer.tcp.rcv_nxt)?;
            let n = source.bytes().min(left);
            if n == 0 {
                return Ok(());
            }
            left -= n;
            match source {
                Source::Tcp(_) => {
                    let skip = copied.wrapping_sub(peer.tcp.copied_seq) as usize;
                    for &got in peer.tcp.bytes.iter().skip(skip).take(n as usize) {
                        assert_eq!(got, byte(at));
                        at += 1;
                    }
                    copied = copied.wrapping_add(n);
                }
                Source::Ring { extent, .. } => {
                    let base = extent.page() as usize * 4096;
                    for span in ahead.spans(extent, n) {
                        for offset in span.offset..span.offset + span.len {
                            assert_eq!(peer.memory[base + offset as usize], byte(at));
                            at += 1;
                        }
                    }
                    ahead.consume(n);
                }
            }
        }
    }

    /// Nobody may sleep who has something to do.
    fn check_sleepers(&mut self) -> Result<(), Error> {
        for side in 0..2 {
            let (me, peer) = self.split(side);
            if me.reader_asleep {
                let mut ahead = me.inbound.clone();
                let (copied, rcv_nxt) = (peer.tcp.copied_seq, peer.tcp.rcv_nxt);
                let source = ahead.look(&peer.slot, PAGES, copied, rcv_nxt)?;
                assert_eq!(source.bytes(), 0, "a reader was not woken");
            }
            if let Some(want) = me.writer_asleep {
                if !me.out.is_settled() {
                    let published = me.slot.word(slot::TX_SEGMENTS).load_relaxed();
                    let entered = peer.slot.word(slot::RX_SEGMENTS).load_relaxed();
                    assert!(
                        published.wrapping_sub(entered) >= 8,
                        "a writer was not woken"
                    );
                }
                let mut ahead = me.out.clone();
                assert!(ahead.room(&peer.slot)? < want, "a writer was not woken");
            }
        }
        Ok(())
    }

    /// Delivers and reads everything, goes back to TCP, and takes all memory back.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        for side in 0..2 {
            self.step(side, Op::Leave)?;
        }
        for _ in 0..64 {
            for side in 0..2 {
                self.step(side, Op::Send(0))?;
                self.step(side, Op::Deliver(u32::MAX))?;
                self.read(side, u32::MAX)?;
                self.free(side)?;
            }
        }
        for side in 0..2 {
            assert_eq!(self.ends[side].read, self.ends[1 - side].sent);
            assert_eq!(
                self.ends[side].arena.used(),
                0,
                "an extent was not given back"
            );
            assert_eq!(self.ends[side].out.mode(), Mode::Tcp);
        }
        Ok(())
    }
}

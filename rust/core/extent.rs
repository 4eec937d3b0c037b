// SPDX-License-Identifier: GPL-2.0

//! Extents: the runs of arena pages that rings live in, and the spans that a copy is made of.

/// Bytes of a page, as log2.
pub const PAGE_SHIFT: u32 = 12;

/// Bytes of a page.
pub const PAGE_SIZE: u32 = 4096;

/// The largest extent has 2^10 pages (4 MiB).
pub const MAX_ORDER: u8 = 10;

/// A run of 2^`order` arena pages that starts at a multiple of its own length.
///
/// # Invariants
///
/// `order` is at most [`MAX_ORDER`], `page` is a multiple of 2^`order`, and the last page number
/// fits in 32 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    page: u32,
    order: u8,
}

impl Extent {
    /// The extent of 2^`order` pages at arena page `page`, if there can be one.
    ///
    /// ```
    /// use xenvmc_core::Extent;
    ///
    /// let extent = Extent::new(64, 4).unwrap();
    /// assert_eq!(extent.bytes(), 65536);
    /// assert!(extent.fits(80) && !extent.fits(79));
    /// assert!(Extent::new(65, 4).is_none());
    /// ```
    pub const fn new(page: u32, order: u8) -> Option<Self> {
        if order > MAX_ORDER {
            return None;
        }
        let pages = 1u32.wrapping_shl(order as u32);
        if page & pages.wrapping_sub(1) != 0 {
            return None;
        }
        // INVARIANT: `page` is a multiple of `pages`, so that the last one is `page | (pages - 1)`.
        Some(Self { page, order })
    }

    /// Number of the first arena page.
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// The order of the smallest extent with room for `bytes`, or [`MAX_ORDER`].
    ///
    /// ```
    /// use xenvmc_core::Extent;
    ///
    /// assert_eq!(Extent::order_for(1), 0);
    /// assert_eq!(Extent::order_for(4097), 1);
    /// assert_eq!(Extent::order_for(256 << 10), 6);
    /// assert_eq!(Extent::order_for(u32::MAX), 10);
    /// ```
    pub const fn order_for(bytes: u32) -> u8 {
        let mut order = 0;
        while order < MAX_ORDER && 1u32.wrapping_shl(PAGE_SHIFT.wrapping_add(order as u32)) < bytes
        {
            order = order.wrapping_add(1);
        }
        order
    }

    /// log2 of the number of pages, 0 to [`MAX_ORDER`].
    pub const fn order(&self) -> u8 {
        self.order
    }

    /// Number of pages, 1 to 1024.
    pub const fn pages(&self) -> u32 {
        1u32.wrapping_shl(self.order as u32)
    }

    /// Number of bytes, 4096 to 4 MiB.
    pub const fn bytes(&self) -> u32 {
        self.pages().wrapping_shl(PAGE_SHIFT)
    }

    /// Whether all of it lies within the first `pages` pages of the arena.
    pub const fn fits(&self, pages: u32) -> bool {
        match self.page.checked_add(self.pages()) {
            Some(end) => end <= pages,
            None => false,
        }
    }
}

/// A run of bytes within one page of an extent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// Byte within the extent.
    pub offset: u32,
    /// Number of bytes, 1 to 4096; does not reach into the next page.
    pub len: u32,
}

impl Span {
    /// Number of the page within the extent.
    pub const fn page(&self) -> u32 {
        self.offset.wrapping_shr(PAGE_SHIFT)
    }

    /// Byte within that page.
    pub const fn in_page(&self) -> u32 {
        self.offset & (PAGE_SIZE - 1)
    }
}

/// The pieces of a copy into or out of a ring, in the order of the stream.
///
/// No piece crosses a page or the end of the extent, because granted pages are reached one by one.
#[derive(Clone, Debug)]
pub struct Spans {
    at: u32,
    left: u32,
    mask: u32,
}

impl Spans {
    /// The pieces of `len` bytes from ring byte `at` on, in an extent of `size` bytes.
    ///
    /// `size` is that of an [`Extent`]: a power of two, at least a page. Not more than `size` bytes
    /// are given out.
    ///
    /// ```
    /// use xenvmc_core::extent::Spans;
    ///
    /// let pieces: Vec<_> = Spans::new(8000, 300, 8192).map(|s| (s.page(), s.in_page(), s.len)).collect();
    /// assert_eq!(pieces, [(1, 3904, 192), (0, 0, 108)]);
    /// ```
    pub const fn new(at: u32, len: u32, size: u32) -> Self {
        Self {
            at,
            left: if len < size { len } else { size },
            mask: size.wrapping_sub(1),
        }
    }

    /// Bytes not given out yet.
    pub const fn left(&self) -> u32 {
        self.left
    }
}

impl Iterator for Spans {
    type Item = Span;

    #[inline]
    fn next(&mut self) -> Option<Span> {
        if self.left == 0 {
            return None;
        }
        let offset = self.at & self.mask;
        let room = PAGE_SIZE.wrapping_sub(offset & (PAGE_SIZE - 1));
        let len = if self.left < room { self.left } else { room };
        self.at = self.at.wrapping_add(len);
        self.left = self.left.wrapping_sub(len);
        Some(Span { offset, len })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Which guests are to be looked at: none, one, or all. In a word of 16 bits, so that two of them fit in one that is changed
//! atomically.

/// None, one, or all guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// None.
    Nobody,
    /// That of this number.
    One(u16),
    /// All, because there is more than one, or because nobody knows.
    All,
}

/// What stands for all.
const ALL: u16 = u16::MAX;

impl Which {
    /// What both want.
    ///
    /// ```
    /// use xenvmc_core::which::Which;
    ///
    /// assert_eq!(Which::One(3).and(Which::Nobody), Which::One(3));
    /// assert_eq!(Which::One(3).and(Which::One(4)), Which::All);
    /// ```
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, which) | (which, Self::Nobody) => which,
            (Self::One(a), Self::One(b)) if a == b => self,
            _ => Self::All,
        }
    }

    /// The word. A number that is that of no domain is as good as all.
    #[must_use]
    pub fn to_word(self) -> u16 {
        match self {
            Self::Nobody => 0,
            Self::One(number) => number.saturating_add(1),
            Self::All => ALL,
        }
    }

    /// What a word stands for.
    #[must_use]
    pub fn from_word(word: u16) -> Self {
        match word {
            ALL => Self::All,
            word => word.checked_sub(1).map_or(Self::Nobody, Self::One),
        }
    }
}

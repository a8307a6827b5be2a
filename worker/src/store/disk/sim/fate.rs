//! Which unsynced changes survive a power cut or a failed sync.

use sq_tests::random::Random;

/// Drawn once for all changes of a file or of the directory: if each were drawn alone, the two extremes would be very rare.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    NothingStays,
    EverythingStays,
    /// Each survives or not by chance.
    Mixed,
}

impl Fate {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::NothingStays,
            1 => Self::EverythingStays,
            _ => Self::Mixed,
        }
    }

    /// How many survive of changes that reach the disk in order.
    pub(super) fn prefix(self, changes: usize, random: &mut Random) -> usize {
        match self {
            Self::NothingStays => 0,
            Self::EverythingStays => changes,
            Self::Mixed => random.below(changes + 1),
        }
    }

    /// Which sectors of one write survive.
    pub(super) fn sectors(self, sectors: usize, random: &mut Random) -> Vec<bool> {
        match self {
            Self::NothingStays => vec![false; sectors],
            Self::EverythingStays => vec![true; sectors],
            Self::Mixed => match random.below(3) {
                0 => vec![false; sectors],
                1 => vec![true; sectors],
                _ => (0..sectors).map(|_| random.one_in(2)).collect(),
            },
        }
    }
}

//! What becomes of changes that were not synced, when the power goes or a sync fails.

use super::random::Random;

/// Drawn once for all the changes of a file or of the directory: were each alone left to chance, the two ends
/// would hardly ever be seen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    NothingStays,
    EverythingStays,
    /// Each has a fate of its own.
    Mixed,
}

impl Fate {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.up_to(3) {
            0 => Self::NothingStays,
            1 => Self::EverythingStays,
            _ => Self::Mixed,
        }
    }

    /// How many stay, of changes that reach the disk in their order.
    pub(super) fn prefix(self, changes: usize, random: &mut Random) -> usize {
        match self {
            Self::NothingStays => 0,
            Self::EverythingStays => changes,
            Self::Mixed => random.up_to(changes),
        }
    }

    /// Which of the sectors of one write stay.
    pub(super) fn sectors(self, sectors: usize, random: &mut Random) -> Vec<bool> {
        match self {
            Self::NothingStays => vec![false; sectors],
            Self::EverythingStays => vec![true; sectors],
            Self::Mixed => match random.up_to(2) {
                0 => vec![false; sectors],
                1 => vec![true; sectors],
                _ => (0..sectors).map(|_| random.one_in(2)).collect(),
            },
        }
    }
}

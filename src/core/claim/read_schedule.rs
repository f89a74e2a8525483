//! When the owner of an address is read.

use std::ops::Deref;

use super::BootInstant;

/// The times at which the owner of an address is read, earliest first.
///
/// The number is bounded: failed claims schedule reads even while none can be sent (the VPC is unknown, or too many reads
/// are in flight). At the limit the latest read is dropped, because an earlier one shows the same and periodic verification
/// follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadSchedule(Vec<BootInstant>);

impl ReadSchedule {
    /// Room for the three reads that verify a claim, and for others.
    pub const CAPACITY: usize = 8;

    /// Schedules a read.
    pub fn add(&mut self, due: BootInstant) {
        let place = self.0.partition_point(|r| *r <= due);
        self.0.insert(place, due);
        self.0.truncate(Self::CAPACITY);
    }

    /// Removes the reads that are due at `moment` or earlier.
    pub fn forget_until(&mut self, moment: BootInstant) {
        self.0.retain(|due| *due > moment);
    }
}

impl<const N: usize> From<[BootInstant; N]> for ReadSchedule {
    fn from(moments: [BootInstant; N]) -> Self {
        let mut reads = Self::default();
        moments.into_iter().for_each(|due| reads.add(due));
        reads
    }
}

impl Deref for ReadSchedule {
    type Target = [BootInstant];

    fn deref(&self) -> &[BootInstant] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(second))
    }

    #[test]
    fn the_earliest_stay_in_their_order() {
        let mut reads = ReadSchedule::from([9, 3, 7].map(at));
        (100..200).for_each(|second| reads.add(at(second)));
        reads.add(at(1));
        assert_eq!(*reads, [1, 3, 7, 9, 100, 101, 102, 103].map(at));
        reads.forget_until(at(9));
        assert_eq!(*reads, [100, 101, 102, 103].map(at));
        reads.forget_until(at(103));
        assert!(reads.is_empty());
    }
}

//! A Bloom filter over the subjects of one stored block, so that a replay of a rare pattern can skip blocks.
//!
//! Format, version 1 (stable on disk):
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version in the high four bits, number of probes `k` in the low four; `k` = 0 matches everything |
//! | 2 | length of the bit array in bytes, little endian, 8 to 2045 |
//! | rest | the bit array; bit `n` is bit `n % 8` (lowest first) of byte `n / 8` |
//!
//! A block's filter holds one hash of each whole subject and one of each segment with its position
//! (the namespace has position 0). The hash is 64-bit FNV-1a over one tag byte (255 for a whole
//! subject, else the position, at most 254) and the text, finished by the mixer of `SplitMix64`. Of a hash
//! with low half `a` and high half `b`, probe `i` of an array of `m` bits is the bit
//! `((a + i * (b | 1)) mod 2^32) * m / 2^32`.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use hashbrown::HashSet;

use super::pattern::Pattern;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3;
const ARRAY_BYTES_MIN: usize = 8;
/// The longest filter, header included.
pub const FILTER_BYTES_MAX: usize = 2048;
const ARRAY_BYTES_MAX: usize = FILTER_BYTES_MAX - HEADER_BYTES;
const BITS_PER_HASH: usize = 10;
/// The best number of probes for ten bits per hash: one false positive in 120.
const PROBES_MAX: usize = 7;
/// With more hashes even the longest filter matches nearly everything. Also bounds the memory of the builder.
const HASHES_MAX: usize = 65_536;
/// Number of subjects that the builder remembers as texts, so that a repeated subject costs one look-up.
const SEEN_MAX: usize = 256;
const WHOLE: u8 = 255;
const POSITION_MAX: u8 = 254;
const LOW_HALF: u64 = 0xffff_ffff;

/// Collects the subjects of one block.
#[derive(Debug, Clone, Default)]
pub struct FilterBuilder {
    /// The distinct hashes so far: their number decides the length of the filter.
    hashes: HashSet<u64>,
    /// The first subjects as texts. Their hashes would not do, since two subjects with equal hashes can have different
    /// segments.
    seen: HashSet<Box<str>>,
    /// Whether the block has more than [`HASHES_MAX`] hashes: its filter then matches everything.
    overfull: bool,
}

impl FilterBuilder {
    /// A builder for a block without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the subject of one event. Cheap for a subject that repeats.
    pub fn add(&mut self, subject: &str) {
        if self.overfull || self.seen.contains(subject) {
            return;
        }
        if self.seen.len() < SEEN_MAX {
            self.seen.insert(Box::from(subject));
        }
        self.hashes.insert(whole_hash(subject));
        for (position, segment) in subject.split('.').enumerate() {
            self.hashes.insert(segment_hash(position, segment));
        }
        if self.hashes.len() > HASHES_MAX {
            self.clear();
            self.overfull = true;
        }
    }

    /// Removes all subjects for the next block, and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.hashes.clear();
        self.seen.clear();
        self.overfull = false;
    }

    /// The stored form of the filter of all added subjects: about ten bits per distinct hash, at most
    /// [`FILTER_BYTES_MAX`].
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let count = self.hashes.len();
        let length = (count * BITS_PER_HASH).div_ceil(8).clamp(ARRAY_BYTES_MIN, ARRAY_BYTES_MAX);
        // The best number of probes is ln 2 (7/10) times the bits per hash: fewer when the array has its largest size.
        let probes = (length * 8 * 7).checked_div(count * 10).unwrap_or(1).clamp(1, PROBES_MAX);
        let probes = if self.overfull { 0 } else { u8::try_from(probes).unwrap_or(1) };

        let mut array = vec![0_u8; length];
        for hash in &self.hashes {
            for bit in bits(*hash, probes, length) {
                if let Some(byte) = array.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        let mut filter = Vec::with_capacity(HEADER_BYTES + length);
        filter.push(VERSION << 4 | probes);
        filter.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        filter.append(&mut array);
        filter
    }
}

/// The filter of a stored block.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a>(&'a [u8]);

impl<'a> Filter<'a> {
    /// Reads a stored filter; `None` when the format is unknown. The block must then be searched, as [`may_match`]
    /// says.
    #[must_use]
    pub fn parse(stored: &'a [u8]) -> Option<Self> {
        let (header, array) = stored.split_at_checked(HEADER_BYTES)?;
        let [first, low, high] = *header else {
            return None;
        };
        let fits = (ARRAY_BYTES_MIN..=ARRAY_BYTES_MAX).contains(&array.len());
        let whole = array.len() == usize::from(u16::from_le_bytes([low, high]));
        let known = first >> 4 == VERSION && usize::from(first & 0xf) <= PROBES_MAX;
        (fits && whole && known).then_some(Self(stored))
    }

    /// Whether the block may hold an event that `pattern` matches. `false` is certain; `true` may be a false positive.
    #[must_use]
    pub fn may_match(&self, pattern: &Pattern) -> bool {
        if pattern.is_literal() {
            return self.has(whole_hash(pattern.as_str()));
        }
        pattern.literals().all(|(position, segment)| self.has(segment_hash(position, segment)))
    }

    /// Whether all bits of a hash are set. Without probes every hash is in the filter.
    fn has(&self, hash: u64) -> bool {
        let [first, _, _, array @ ..] = self.0 else {
            return true;
        };
        bits(hash, first & 0xf, array.len()).all(|bit| array.get(bit / 8).is_none_or(|byte| byte & 1 << (bit % 8) != 0))
    }
}

/// Whether the block of a stored filter may hold an event that `pattern` matches; `true` when the filter cannot be
/// read.
#[must_use]
pub fn may_match(stored: &[u8], pattern: &Pattern) -> bool {
    Filter::parse(stored).is_none_or(|filter| filter.may_match(pattern))
}

fn whole_hash(subject: &str) -> u64 {
    hash(WHOLE, subject)
}

fn segment_hash(position: usize, segment: &str) -> u64 {
    hash(u8::try_from(position).map_or(POSITION_MAX, |at| at.min(POSITION_MAX)), segment)
}

/// FNV-1a and the mixer of `SplitMix64`, since FNV-1a alone leaves the high bits of short texts nearly equal.
fn hash(tag: u8, text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in core::iter::once(tag).chain(text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// The bits of one hash in an array of `length` bytes.
fn bits(hash: u64, probes: u8, length: usize) -> impl Iterator<Item = usize> {
    let start = hash & LOW_HALF;
    let step = hash >> 32 | 1;
    // An array has at most 2045 bytes, so no conversion fails and the product does not overflow.
    let size = u64::try_from(length * 8).unwrap_or(u64::from(u16::MAX));
    (0..u64::from(probes)).map(move |probe| {
        let point = (start + probe * step) & LOW_HALF;
        usize::try_from((point * size) >> 32).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;
    use crate::subjects::pattern::tests::{any_pattern, any_subject};

    /// Computed by another implementation of the format above.
    const PINNED_WHOLE: u64 = 0xce1d_3b27_01d4_aa86;
    const PINNED_FIRST: u64 = 0x5b83_7e37_3e68_6a6c;
    const PINNED_SECOND: u64 = 0x2506_33f1_5019_7690;
    const PINNED_FILTER: [u8; 11] = [0x17, 0x08, 0x00, 0x07, 0xc8, 0x10, 0x29, 0xc0, 0x88, 0x28, 0x22];

    fn filter_of<S: AsRef<str>>(subjects: &[S]) -> Vec<u8> {
        let mut builder = FilterBuilder::new();
        for subject in subjects {
            builder.add(subject.as_ref());
        }
        builder.build()
    }

    /// Whether a replay of `pattern` reads the block of this filter.
    fn reads(filter: &[u8], pattern: &str) -> bool {
        Pattern::parse(pattern).is_ok_and(|pattern| may_match(filter, &pattern))
    }

    #[test]
    fn a_replay_reads_the_blocks_that_may_match_and_skips_the_others() {
        let filter = filter_of(&["app.orders.created", "app.users.deleted"]);
        for pattern in ["app.orders.created", "app.>", "app.orders.*", "app.*.deleted", "app.*.*", "app.users.**"] {
            assert!(reads(&filter, pattern), "{pattern}");
        }
        for pattern in ["app.orders", "app.orders.deleted", "app.rare.>", "app.*.rare", "app.created.*", "other.>"] {
            assert!(!reads(&filter, pattern), "{pattern}");
        }
        // Both segments occur, only not together: the price of one filter for all patterns.
        assert!(reads(&filter, "app.orders.deleted.>"));
    }

    #[test]
    fn a_block_without_events_is_always_skipped() {
        assert!(!reads(&filter_of::<&str>(&[]), "app.>"));
    }

    #[test]
    fn the_format_does_not_change() {
        assert_eq!(hash(WHOLE, "app.a"), PINNED_WHOLE);
        assert_eq!(hash(0, "app"), PINNED_FIRST);
        assert_eq!(hash(1, "a"), PINNED_SECOND);
        assert_eq!(filter_of(&["app.a"]), PINNED_FILTER);
    }

    #[test]
    fn a_filter_does_not_depend_on_order_or_repetition() {
        let subjects = (0..300).map(|n| format!("app.s{n}.x")).collect::<Vec<_>>();
        let mut again = subjects.clone();
        again.extend(subjects.iter().rev().cloned());
        assert_eq!(filter_of(&subjects), filter_of(&again));
    }

    #[test]
    fn a_filter_has_ten_bits_for_each_hash_and_at_most_2_kib() {
        let size = |subjects: usize| filter_of(&(0..subjects).map(|n| format!("app.s{n}")).collect::<Vec<_>>()).len();
        assert_eq!(size(0), 3 + 8);
        assert_eq!(size(1), 3 + 8);
        // 100 subjects: 100 whole, 100 second segments, one namespace.
        assert_eq!(size(100), 3 + 252);
        assert_eq!(size(5_000), 2048);
        assert_eq!(size(30_000), 2048);
    }

    #[test]
    fn few_blocks_are_read_in_vain() {
        for (subjects, tolerated) in [(1, 2), (50, 2), (500, 2), (800, 2), (3_000, 35)] {
            let filter = filter_of(&(0..subjects).map(|n| format!("app.orders.s{n}")).collect::<Vec<_>>());
            let vain = (0..1_000).filter(|n| reads(&filter, &format!("app.orders.t{n}"))).count();
            assert!(vain * 100 <= tolerated * 1_000, "{vain} of 1000 with {subjects} subjects");
        }
    }

    #[test]
    fn a_block_of_too_many_subjects_is_always_read() {
        let mut builder = FilterBuilder::new();
        for n in 0..70_000 {
            builder.add(&format!("app.{n}"));
        }
        assert!(reads(&builder.build(), "app.absent"));
        builder.clear();
        builder.add("app.a");
        assert_eq!(builder.build(), filter_of(&["app.a"]));
    }

    #[test]
    fn a_block_whose_filter_cannot_be_read_is_read() {
        let filter = filter_of(&["app.a"]);
        for length in 0..filter.len() {
            assert!(filter.get(..length).is_some_and(|cut| reads(cut, "app.b")), "cut to {length}");
        }
        let mut longer = filter.clone();
        longer.push(0);
        let mut newer = filter.clone();
        newer.splice(..1, [0x27]);
        let mut probes = filter.clone();
        probes.splice(..1, [0x18]);
        for damaged in [longer, newer, probes, vec![0; 11], vec![0xff; 4096]] {
            assert!(Filter::parse(&damaged).is_none());
            assert!(reads(&damaged, "app.b"));
        }
        assert!(!reads(&filter, "app.b"));
    }

    proptest! {
        #[test]
        fn a_block_that_matches_is_never_skipped(
            subjects in prop::collection::vec(any_subject(), 0..40),
            more in prop::collection::vec("[a-z]{1,9}(\\.[a-z0-9ü]{1,3}){1,8}", 0..400),
            pattern in any_pattern(),
        ) {
            let all = subjects.into_iter().chain(more).collect::<Vec<String>>();
            let filter = filter_of(&all);
            prop_assert!(Filter::parse(&filter).is_some());
            if all.iter().any(|subject| pattern.matches(subject)) {
                prop_assert!(may_match(&filter, &pattern));
            }
            for subject in &all {
                prop_assert!(reads(&filter, subject));
                let with_tail = format!("{subject}.>");
                prop_assert!(reads(&filter, &with_tail));
            }
        }

        #[test]
        fn any_stored_bytes_are_read_without_a_crash(bytes in prop::collection::vec(any::<u8>(), 0..64), pattern in any_pattern()) {
            prop_assert!(may_match(&bytes, &pattern) || Filter::parse(&bytes).is_some());
        }
    }
}

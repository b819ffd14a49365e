//! Archives that nobody would make. Whatever they are, they write inside only, and what is unpacked leads nowhere else.

use std::fs;
use std::path::Path;

use super::{LIMITS, Place, Tar, gzip, sum};

/// Random numbers that a seed reproduces: the generator of Steele, Lea and Flood (SplitMix64).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn name(&mut self) -> String {
        let parts = ["a", "b", "c", "a", "b", "c", "a", "b", "c", ".", "..", ""];
        let count = 1 + self.below(3);
        (0..count).map(|_| parts[self.below(parts.len())]).collect::<Vec<_>>().join("/")
    }

    /// A name that is more often one that is there.
    fn good_name(&mut self) -> String {
        let parts = ["a", "b", "c", "d"];
        let count = 1 + self.below(3);
        (0..count).map(|_| parts[self.below(parts.len())]).collect::<Vec<_>>().join("/")
    }

    fn target(&mut self) -> String {
        let ups = ["", "", "../", "../../", "/"];
        [ups[self.below(ups.len())], &self.good_name()].concat()
    }
}

fn archive(random: &mut SplitMix64) -> Vec<u8> {
    let mut tar = Tar::default();
    for _ in 0..1 + random.below(6) {
        let name = if random.below(12) == 0 { random.name() } else { random.good_name() };
        tar = match random.below(12) {
            0..=2 => tar.file(&name, "content"),
            3..=5 => tar.directory(&name, 0o755),
            6..=8 => tar.symlink(&name, &random.target()),
            9 => tar.hard_link(&name, &random.target()),
            10 => tar.pax("path", &name).file("x", "pax"),
            _ => tar.entry(b'L', "long", "", format!("{name}\0")).symlink("x", &random.target()),
        };
    }
    let mut bytes = tar.end();
    // Some have one byte changed, in a header whose checksum is right again.
    if random.below(4) == 0 {
        let header = random.below(bytes.len() / 512) * 512;
        bytes[header + random.below(512)] = u8::try_from(random.below(256)).unwrap();
        sum(&mut bytes[header..header + 512]);
    }
    bytes
}

/// Every link below the directory leads to nothing, or to what is inside.
fn assert_inside(root: &Path, directory: &Path) -> usize {
    let mut links = 0;
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            links += 1;
            if let Ok(target) = fs::canonicalize(entry.path()) {
                assert!(target.starts_with(root), "{} leads to {}", entry.path().display(), target.display());
            }
        } else if kind.is_dir() {
            links += assert_inside(root, &entry.path());
        }
    }
    links
}

#[test]
fn random_archives_stay_inside() {
    let given = std::env::var("ROLLBOOK_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = given.map_or(0..1000, |seed: u64| seed..seed + 1);
    let (mut taken, mut refused, mut links) = (0, 0, 0);
    for seed in seeds {
        println!("ROLLBOOK_SEED={seed}");
        let place = Place::new();
        match place.unpack(&gzip(&archive(&mut SplitMix64(seed))), &LIMITS) {
            Ok(_) => {
                taken += 1;
                links += assert_inside(&fs::canonicalize(place.directory()).unwrap(), &place.directory());
            }
            Err(_) => refused += 1,
        }
    }
    let enough = taken > 100 && refused > 100 && links > 50;
    assert!(given.is_some() || enough, "{taken} taken, {refused} refused, {links} links: the names are badly chosen");
}

//! Rules of names and links. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::error::Problem;

/// Bytes of the longest part of a name, on all usual file systems.
const PART_BYTES_MAX: usize = 255;

/// The path of a name in the directory of its archive; empty for the directory itself.
pub(super) fn entry_path(name: &[u8], path_bytes: usize) -> Result<PathBuf, Problem> {
    check_bytes(name, path_bytes)?;
    if name.starts_with(b"/") {
        return Err(Problem::AbsoluteName);
    }
    let mut path = PathBuf::new();
    for part in parts(name) {
        match part {
            b".." => return Err(Problem::ParentName),
            part if part.len() > PART_BYTES_MAX => return Err(Problem::LongName),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// Whether a symbolic link at `path` may have this target: one that stays in the directory of the archive.
///
/// `..` is taken only at the start of a target. The parents of a link are directories, so a `..` at the start leads to
/// exactly those; behind a name, `..` may leave from wherever another link leads, which is not what the names say.
pub(super) fn link_target(path: &Path, target: &[u8], path_bytes: usize) -> Result<PathBuf, Problem> {
    check_bytes(target, path_bytes)?;
    if target.starts_with(b"/") {
        return Err(Problem::LinkOut);
    }
    // The last part of the path is the link itself.
    let mut ups_left = path.components().count().saturating_sub(1);
    let mut named = false;
    for part in parts(target) {
        match part {
            b".." if named => return Err(Problem::LinkOut),
            b".." => ups_left = ups_left.checked_sub(1).ok_or(Problem::LinkOut)?,
            part if part.len() > PART_BYTES_MAX => return Err(Problem::LongName),
            _ => named = true,
        }
    }
    Ok(PathBuf::from(OsStr::from_bytes(target)))
}

fn check_bytes(name: &[u8], path_bytes: usize) -> Result<(), Problem> {
    match name {
        [] => Err(Problem::EmptyName),
        name if name.len() > path_bytes => Err(Problem::LongName),
        name if name.contains(&0) => Err(Problem::NulName),
        _ => Ok(()),
    }
}

/// The parts of a name that say something.
fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Result<String, Problem> {
        entry_path(name.as_bytes(), 300).map(|path| path.to_str().unwrap().to_owned())
    }

    fn target(link: &str, target: &str) -> Result<PathBuf, Problem> {
        link_target(Path::new(link), target.as_bytes(), 300)
    }

    #[test]
    fn names_are_relative_and_go_down_only() {
        for (name, clean) in
            [("a", "a"), ("./a//b/", "a/b"), (".", ""), ("./", ""), ("a/./b", "a/b"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(path(name).as_deref(), Ok(clean));
        }
        for name in ["..", "../a", "a/..", "a/../b", "a/b/../../c", "./.."] {
            assert_eq!(path(name), Err(Problem::ParentName), "{name}");
        }
        assert_eq!(
            (path("/"), path("//a"), path("")),
            (Err(Problem::AbsoluteName), Err(Problem::AbsoluteName), Err(Problem::EmptyName))
        );
        assert_eq!((path("a\0b"), path("a/\0")), (Err(Problem::NulName), Err(Problem::NulName)));
    }

    #[test]
    fn names_and_their_parts_have_a_longest() {
        assert!(path(&"a".repeat(255)).is_ok() && path(&"a/".repeat(150)).is_ok());
        assert_eq!(path(&"a".repeat(256)), Err(Problem::LongName));
        assert_eq!(path(&format!("{}b", "a/".repeat(150))), Err(Problem::LongName));
        assert_eq!(
            (target("l", &"a".repeat(256)), target("l", &"a/".repeat(151))),
            (Err(Problem::LongName), Err(Problem::LongName))
        );
    }

    #[test]
    fn targets_of_links_stay_inside() {
        for (link, to) in
            [("l", "a"), ("l", "a/b"), ("l", "."), ("d/l", ".."), ("a/b/l", "../../c"), ("a/l", "./.././b/")]
        {
            assert_eq!(target(link, to), Ok(PathBuf::from(to)), "{link} -> {to}");
        }
        for (link, to) in
            [("l", ".."), ("a/l", "../.."), ("l", "/etc"), ("l", "a/.."), ("a/b/l", "c/../d"), ("a/l", "../b/../..")]
        {
            assert_eq!(target(link, to), Err(Problem::LinkOut), "{link} -> {to}");
        }
        assert_eq!((target("l", ""), target("l", "a\0")), (Err(Problem::EmptyName), Err(Problem::NulName)));
    }
}

//! Archives of builds: gzip tar to files and back. Blocking I/O on a directory that the caller names; to be called where a
//! thread may wait.
//!
//! ```text
//! limits      how much an archive may hold         error       why an archive is refused
//! stream      gzip to tar blocks                   extension   long names: GNU and PAX
//! names       rules of names and links             scan        rules of whole archives; what every reader goes through
//! check       an archive that is not unpacked      unpack      an archive to files        pack        files to an archive
//! ```
//!
//! May import nothing of rollbook: siblings alone. Invariant: an archive writes nothing outside its directory, no link
//! leads out of the directory, no link is followed, and what is refused leaves nothing behind. `check` and `unpack` go
//! through one `scan`, so what the one takes the other takes.

pub mod check;
pub mod error;
mod extension;
pub mod limits;
mod names;
pub mod pack;
mod scan;
mod stream;
#[cfg(test)]
mod tests;
pub mod unpack;

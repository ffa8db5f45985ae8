//! The options of a mount, runtime-spec config.md, "Linux mount options".

use linux::mount::{Attributes, Propagation};

/// What a list of options asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the mount and everything below it (`rro`, `rnosuid`, …).
    pub recursive: Attributes,
    /// Propagation changes, in order; `true` for the whole tree.
    pub propagation: Vec<(Propagation, bool)>,
    /// It is a bind mount; `Some(true)` with everything below the source.
    pub bind: Option<bool>,
    /// Copy what the image has below the destination into the new tmpfs.
    pub copy_up: bool,
    /// Options of the file system itself, in order.
    pub data: Vec<String>,
}

/// What one option does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    /// Replaces the access-time mode.
    AccessTime(u64),
    RecursiveSet(u64),
    RecursiveClear(u64),
    RecursiveAccessTime(u64),
    Propagate(Propagation, bool),
    Bind(bool),
    /// A flag of the file system, given to it by this name.
    FileSystem(&'static str),
    CopyUp,
    /// Known and without effect: what it asks for is so anyway.
    Nothing,
}

use Effect::{
    AccessTime, Bind, Clear, CopyUp, FileSystem, Nothing, Propagate, RecursiveAccessTime,
    RecursiveClear, RecursiveSet, Set,
};

type A = Attributes;

/// Every option, sorted by name; `minirun features` lists it.
const OPTIONS: &[(&str, Effect)] = &[
    ("async", FileSystem("async")),
    ("atime", AccessTime(0)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(A::NO_DEV)),
    ("diratime", Clear(A::NO_DIRATIME)),
    ("dirsync", FileSystem("dirsync")),
    ("exec", Clear(A::NO_EXEC)),
    ("iversion", FileSystem("iversion")),
    ("lazytime", FileSystem("lazytime")),
    ("loud", Nothing),
    ("mand", FileSystem("mand")),
    ("noatime", AccessTime(A::NO_ATIME)),
    ("nodev", Set(A::NO_DEV)),
    ("nodiratime", Set(A::NO_DIRATIME)),
    ("noexec", Set(A::NO_EXEC)),
    ("noiversion", Nothing),
    ("nolazytime", FileSystem("nolazytime")),
    ("nomand", Nothing),
    ("norelatime", AccessTime(A::STRICT_ATIME)),
    ("nostrictatime", AccessTime(0)),
    ("nosuid", Set(A::NO_SUID)),
    ("nosymfollow", Set(A::NO_SYMFOLLOW)),
    ("private", Propagate(Propagation::Private, false)),
    ("ratime", RecursiveAccessTime(0)),
    ("rbind", Bind(true)),
    ("rdev", RecursiveClear(A::NO_DEV)),
    ("rdiratime", RecursiveClear(A::NO_DIRATIME)),
    ("relatime", AccessTime(0)),
    ("rexec", RecursiveClear(A::NO_EXEC)),
    ("rnoatime", RecursiveAccessTime(A::NO_ATIME)),
    ("rnodev", RecursiveSet(A::NO_DEV)),
    ("rnodiratime", RecursiveSet(A::NO_DIRATIME)),
    ("rnoexec", RecursiveSet(A::NO_EXEC)),
    ("rnorelatime", RecursiveAccessTime(A::STRICT_ATIME)),
    ("rnostrictatime", RecursiveAccessTime(0)),
    ("rnosuid", RecursiveSet(A::NO_SUID)),
    ("rnosymfollow", RecursiveSet(A::NO_SYMFOLLOW)),
    ("ro", Set(A::READ_ONLY)),
    ("rprivate", Propagate(Propagation::Private, true)),
    ("rrelatime", RecursiveAccessTime(0)),
    ("rro", RecursiveSet(A::READ_ONLY)),
    ("rrw", RecursiveClear(A::READ_ONLY)),
    ("rshared", Propagate(Propagation::Shared, true)),
    ("rslave", Propagate(Propagation::Slave, true)),
    ("rstrictatime", RecursiveAccessTime(A::STRICT_ATIME)),
    ("rsuid", RecursiveClear(A::NO_SUID)),
    ("rsymfollow", RecursiveClear(A::NO_SYMFOLLOW)),
    ("runbindable", Propagate(Propagation::Unbindable, true)),
    ("rw", Clear(A::READ_ONLY)),
    ("shared", Propagate(Propagation::Shared, false)),
    ("silent", FileSystem("silent")),
    ("slave", Propagate(Propagation::Slave, false)),
    ("strictatime", AccessTime(A::STRICT_ATIME)),
    ("suid", Clear(A::NO_SUID)),
    ("symfollow", Clear(A::NO_SYMFOLLOW)),
    ("sync", FileSystem("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(Propagation::Unbindable, false)),
];

/// The names of all options that are understood here (others go to the file system).
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// Reads a list of options. What is not in the table is for the file system.
pub fn parse<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut asked = MountOptions::default();
    for option in options.iter().map(AsRef::as_ref) {
        match OPTIONS.binary_search_by_key(&option, |(name, _)| name) {
            Ok(found) => asked.apply(OPTIONS[found].1),
            Err(_) => asked.data.push(option.to_owned()),
        }
    }
    asked
}

impl MountOptions {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Set(bits) => set(&mut self.attributes, bits),
            Clear(bits) => clear(&mut self.attributes, bits),
            AccessTime(mode) => access_time(&mut self.attributes, mode),
            RecursiveSet(bits) => set(&mut self.recursive, bits),
            RecursiveClear(bits) => clear(&mut self.recursive, bits),
            RecursiveAccessTime(mode) => access_time(&mut self.recursive, mode),
            Propagate(propagation, whole) => self.propagation.push((propagation, whole)),
            Bind(whole) => self.bind = Some(whole),
            FileSystem(name) => self.data.push(name.to_owned()),
            CopyUp => self.copy_up = true,
            Nothing => {}
        }
    }
}

/// Later options win, so a bit is in one of the two words only.
fn set(attributes: &mut Attributes, bits: u64) {
    attributes.set |= bits;
    attributes.clear &= !bits;
}

fn clear(attributes: &mut Attributes, bits: u64) {
    attributes.set &= !bits;
    attributes.clear |= bits;
}

/// The access-time modes are a field, not bits: it is cleared as a whole, then set.
fn access_time(attributes: &mut Attributes, mode: u64) {
    attributes.set &= !A::ACCESS_TIME_MASK;
    attributes.set |= mode;
    attributes.clear |= A::ACCESS_TIME_MASK;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPTIONS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn the_last_word_counts() {
        let asked = parse(&["ro", "nosuid", "rw"]);
        assert_eq!(asked.attributes.set, A::NO_SUID);
        assert_eq!(asked.attributes.clear, A::READ_ONLY);
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let asked = parse(&["mode=755", "noexec", "size=64k", "rbind"]);
        assert_eq!(asked.data, ["mode=755", "size=64k"]);
        assert_eq!(asked.bind, Some(true));
    }
}

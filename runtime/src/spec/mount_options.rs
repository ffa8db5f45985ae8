//! The options of a mount, runtime-spec config.md, "Linux mount options".
//!
//! The kernel keeps three kinds apart, which mount(8) mixes in one list: attributes of the mount
//! (`nosuid`: how this place in the tree is used), flags of the file system's superblock (`sync`:
//! the same wherever it is mounted), and what only the file system itself understands (`mode=755`).
//! A fourth kind is for the runtime (`tmpcopyup`). One table says which is which; the last option
//! about a thing counts.

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
    /// Something is mounted there already and only changes its attributes.
    pub remount: bool,
    /// A source that is a symbolic link is made anew inside, and not followed (crun's option, which
    /// Podman's `no-dereference` becomes).
    pub copy_link: bool,
    /// Owners are mapped through a user namespace; `Some(true)` also in mounts below the source.
    pub idmap: Option<bool>,
    /// Copy what the image has below the destination into the new tmpfs.
    pub copy_up: bool,
    /// Flags of the superblock, in order. A bind mount shares its source's superblock, and there
    /// they have no effect, as with mount(2).
    pub superblock: Vec<&'static str>,
    /// Options of the file system itself, in order.
    pub data: Vec<String>,
    /// The SELinux label of all files of a new file system. No option says it: a label may hold
    /// commas.
    pub label: Option<String>,
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
    Idmap(bool),
    /// A flag of the superblock, by the name that fsconfig(2) has for it.
    Superblock(&'static str),
    CopyUp,
    CopyLink,
    Remount,
    /// Known and without effect: what it asks for is so anyway. `silent` and `loud` were about
    /// messages of mount(2), which fsopen(2) hands to its caller instead; change counters
    /// (`iversion`) are kept by every file system that can, since Linux 6.1 at the latest.
    Nothing,
}

use Effect::{
    AccessTime, Bind, Clear, CopyLink, CopyUp, Idmap, Nothing, Propagate, RecursiveAccessTime,
    RecursiveClear, RecursiveSet, Remount, Set, Superblock,
};

type A = Attributes;

/// Updates the access time about once a day: what the kernel does unless told otherwise. That is
/// also where `atime`, `norelatime` and `nostrictatime` lead: each takes back one of the other
/// modes, and none asks for a mode (mount(2) drops them, runc clears the field).
const RELATIVE: u64 = 0;

/// Every option, sorted by name; `minirun features` lists it.
const OPTIONS: &[(&str, Effect)] = &[
    ("async", Superblock("async")),
    ("atime", AccessTime(RELATIVE)),
    ("bind", Bind(false)),
    ("copy-symlink", CopyLink),
    ("defaults", Nothing),
    ("dev", Clear(A::NO_DEV)),
    ("diratime", Clear(A::NO_DIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(A::NO_EXEC)),
    ("idmap", Idmap(false)),
    ("iversion", Nothing),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noatime", AccessTime(A::NO_ATIME)),
    ("nodev", Set(A::NO_DEV)),
    ("nodiratime", Set(A::NO_DIRATIME)),
    ("noexec", Set(A::NO_EXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", AccessTime(RELATIVE)),
    ("nostrictatime", AccessTime(RELATIVE)),
    ("nosuid", Set(A::NO_SUID)),
    ("nosymfollow", Set(A::NO_SYMFOLLOW)),
    ("private", Propagate(Propagation::Private, false)),
    ("ratime", RecursiveAccessTime(RELATIVE)),
    ("rbind", Bind(true)),
    ("rdev", RecursiveClear(A::NO_DEV)),
    ("rdiratime", RecursiveClear(A::NO_DIRATIME)),
    ("relatime", AccessTime(RELATIVE)),
    ("remount", Remount),
    ("rexec", RecursiveClear(A::NO_EXEC)),
    ("ridmap", Idmap(true)),
    ("rnoatime", RecursiveAccessTime(A::NO_ATIME)),
    ("rnodev", RecursiveSet(A::NO_DEV)),
    ("rnodiratime", RecursiveSet(A::NO_DIRATIME)),
    ("rnoexec", RecursiveSet(A::NO_EXEC)),
    ("rnorelatime", RecursiveAccessTime(RELATIVE)),
    ("rnostrictatime", RecursiveAccessTime(RELATIVE)),
    ("rnosuid", RecursiveSet(A::NO_SUID)),
    ("rnosymfollow", RecursiveSet(A::NO_SYMFOLLOW)),
    ("ro", Set(A::READ_ONLY)),
    ("rprivate", Propagate(Propagation::Private, true)),
    ("rrelatime", RecursiveAccessTime(RELATIVE)),
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
    ("silent", Nothing),
    ("slave", Propagate(Propagation::Slave, false)),
    ("strictatime", AccessTime(A::STRICT_ATIME)),
    ("suid", Clear(A::NO_SUID)),
    ("symfollow", Clear(A::NO_SYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(Propagation::Unbindable, false)),
];

/// The names of all options that are done here; others go to the file system.
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
            Idmap(whole) => self.idmap = Some(whole),
            Superblock(flag) => self.superblock.push(flag),
            CopyUp => self.copy_up = true,
            CopyLink => self.copy_link = true,
            Remount => self.remount = true,
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

    /// What config.md of runtime-spec 1.3.0 says that a runtime must, should or may know.
    const SPECIFIED: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime \
        loud mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
        nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount \
        rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro \
        rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw \
        shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap";

    #[test]
    fn the_table_is_sorted() {
        assert!(OPTIONS.is_sorted_by(|(one, _), (next, _)| one < next));
    }

    #[test]
    fn every_option_of_the_specification_is_known() {
        for option in SPECIFIED.split_whitespace() {
            assert!(names().any(|name| name == option), "{option}");
            assert!(parse(&[option]).data.is_empty(), "{option} goes to the file system");
        }
    }

    #[test]
    fn the_last_word_counts() {
        let asked = parse(&["ro", "nosuid", "rw"]);
        assert_eq!(asked.attributes.set, A::NO_SUID);
        assert_eq!(asked.attributes.clear, A::READ_ONLY);
        let asked = parse(&["rro", "rnodev", "rdev"]);
        assert_eq!(asked.recursive, A { set: A::READ_ONLY, clear: A::NO_DEV });
    }

    #[test]
    fn access_time_modes_replace_each_other_and_nothing_else() {
        for (options, set) in [
            (&["noatime"][..], A::NO_ATIME),
            (&["noatime", "strictatime"], A::STRICT_ATIME),
            (&["noatime", "nodiratime", "relatime"], A::NO_DIRATIME),
            (&["strictatime", "nostrictatime"], RELATIVE),
            (&["norelatime"], RELATIVE),
        ] {
            let asked = parse(options).attributes;
            assert_eq!((asked.set, asked.clear), (set, A::ACCESS_TIME_MASK), "{options:?}");
        }
        let whole = parse(&["rnoatime"]);
        assert_eq!(whole.recursive, A { set: A::NO_ATIME, clear: A::ACCESS_TIME_MASK });
        assert!(whole.attributes.is_empty());
    }

    #[test]
    fn every_attribute_has_its_opposite() {
        for (option, opposite) in [
            ("ro", "rw"),
            ("nosuid", "suid"),
            ("nodev", "dev"),
            ("noexec", "exec"),
            ("nodiratime", "diratime"),
            ("nosymfollow", "symfollow"),
        ] {
            let bits = parse(&[option]).attributes.set;
            assert_eq!(bits.count_ones(), 1, "{option}");
            assert_eq!(parse(&[opposite]).attributes, A { set: 0, clear: bits }, "{opposite}");
            let (option, opposite) = (format!("r{option}"), format!("r{opposite}"));
            assert_eq!(parse(&[&option]).recursive, A { set: bits, clear: 0 }, "{option}");
            assert_eq!(parse(&[&opposite]).recursive, A { set: 0, clear: bits }, "{opposite}");
        }
    }

    #[test]
    fn each_kind_of_option_finds_its_place() {
        let asked = parse(&["mode=755", "noexec", "sync", "size=64k", "rbind", "rslave", "shared"]);
        assert_eq!(asked.data, ["mode=755", "size=64k"]);
        assert_eq!(asked.superblock, ["sync"]);
        assert_eq!(asked.bind, Some(true));
        assert_eq!(asked.propagation, [(Propagation::Slave, true), (Propagation::Shared, false)]);
        let asked = parse(&["tmpcopyup", "ridmap", "remount"]);
        assert_eq!((asked.copy_up, asked.idmap, asked.remount), (true, Some(true), true));
        assert_eq!(parse(&["defaults", "silent", "iversion"]), MountOptions::default());
    }
}

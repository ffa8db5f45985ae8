//! Rules about devices, understood and completed.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::super::Error;
use super::ASKED;

/// The kinds of access, as bits that the kernel's device programs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const MKNOD: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    /// Reads some of the letters `r`, `w` and `m`; none of them means all.
    fn parse(text: &str) -> Result<Self, Error> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                'm' => Self::MKNOD.0,
                _ => {
                    let why = format!("access {text:?} is not made of `r`, `w` and `m`");
                    return Err(Error::invalid(ASKED, why));
                }
            };
        }
        Ok(if bits == 0 { Self::ALL } else { Self(bits) })
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit.0 != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Block or character devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Character,
}

/// Which devices: `None` is every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<i32>,
    pub(super) minor: Option<i32>,
}

impl Devices {
    pub(super) const ALL: Self = Self { kind: None, major: None, minor: None };

    const fn character(major: Option<i32>, minor: Option<i32>) -> Self {
        Self { kind: Some(Kind::Character), major, minor }
    }
}

impl std::fmt::Display for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            None => 'a',
            Some(Kind::Block) => 'b',
            Some(Kind::Character) => 'c',
        };
        let number = |n: Option<i32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// One rule: later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) devices: Devices,
    pub(super) access: Access,
}

/// The rules of the configuration, and after them what every container has.
pub(super) fn complete(configured: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Error> {
    let mut rules = configured.iter().map(understand).collect::<Result<Vec<_>, _>>()?;
    rules.extend(always());
    Ok(rules)
}

/// What no container can do without: the nodes that the specification puts into each `/dev`, the
/// pseudo-terminals of its own devpts, and mknod of anything, which without the right to open it
/// gives nothing. The same list as runc's.
pub(super) fn always() -> impl Iterator<Item = Rule> {
    let mknod = [Kind::Character, Kind::Block].map(|kind| {
        let devices = Devices { kind: Some(kind), ..Devices::ALL };
        Rule { allow: true, devices, access: Access::MKNOD }
    });
    // null, zero, full, random, urandom, tty, ptmx, and the terminals themselves.
    let nodes = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
        (136, None),
    ]
    .map(|(major, minor)| {
        let devices = Devices::character(Some(major), minor);
        Rule { allow: true, devices, access: Access::ALL }
    });
    mknod.into_iter().chain(nodes)
}

fn understand(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Character),
        LinuxDeviceType::P => {
            let why = "a fifo (type `p`) is no device: no rule can be about it";
            return Err(Error::invalid(ASKED, why));
        }
    };
    let number = |value: Option<i64>| match value {
        // Docker writes -1 for "every one".
        None | Some(-1) => Ok(None),
        Some(value) => match i32::try_from(value) {
            Ok(value) if value >= 0 => Ok(Some(value)),
            _ => Err(Error::invalid(ASKED, format!("{value} is not a device number"))),
        },
    };
    let devices = Devices { kind, major: number(rule.major())?, minor: number(rule.minor())? };
    let access = Access::parse(rule.access().as_deref().unwrap_or(""))?;
    Ok(Rule { allow: rule.allow(), devices, access })
}

#[cfg(test)]
pub(super) mod testing {
    //! What the rules mean, told in the plainest way, for the tests of both outputs.

    use super::*;

    /// Reads rules as they stand in a config.json.
    pub(crate) fn rules(json: &str) -> Vec<Rule> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules.iter().map(|rule| understand(rule).unwrap()).collect()
    }

    /// Each bit of the access is decided by the last rule that matches it.
    pub(crate) fn allowed(
        rules: &[Rule],
        kind: Kind,
        (major, minor): (i32, i32),
        access: u8,
    ) -> bool {
        [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let matches = |rule: &&Rule| {
                rule.devices.kind.is_none_or(|k| k == kind)
                    && rule.devices.major.is_none_or(|m| m == major)
                    && rule.devices.minor.is_none_or(|m| m == minor)
                    && rule.access.0 & bit != 0
            };
            rules.iter().rev().find(matches).is_some_and(|rule| rule.allow)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn the_defaults_come_last_and_cannot_be_denied() {
        let deny: Vec<LinuxDeviceCgroup> =
            serde_json::from_str(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
        let rules = complete(&deny).unwrap();
        assert!(allowed(&rules, Kind::Character, (1, 3), 7));
        assert!(allowed(&rules, Kind::Character, (136, 42), 6));
        assert!(allowed(&rules, Kind::Block, (8, 0), 1));
        assert!(!allowed(&rules, Kind::Block, (8, 0), 2));
        assert!(!allowed(&rules, Kind::Character, (1, 1), 6));
    }

    #[test]
    fn callers_spell_every_device_in_three_ways() {
        let [a, b, c] = rules(
            r#"[{"allow":true,"type":"c","major":-1,"minor":-1,"access":"rw"},
                {"allow":true,"type":"c","access":"rw"},
                {"allow":true,"type":"u","access":"wr"}]"#,
        )[..] else {
            panic!("three rules")
        };
        assert_eq!((a, b), (b, c));
        assert_eq!(format!("{} {}", a.devices, a.access), "c *:* rw");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for json in [
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"type":"c","major":-2}]"#,
            r#"[{"allow":true,"type":"c","major":4294967296}]"#,
            r#"[{"allow":true,"access":"rwx"}]"#,
        ] {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            assert!(complete(&rules).is_err(), "{json}");
        }
    }
}

//! The rules as the controller of version 1 takes them: one answer for all devices, and exceptions.
//!
//! That is less than rules can say. A rule that takes back a part of an earlier exception (all of
//! major 1 but 1:3) has no form there, and the kernel would ignore it without a word; so it is an
//! error here.

use std::collections::BTreeMap;

use super::super::Error;
use super::ASKED;
use super::rules::{Access, Devices, Kind, Rule};

/// The files and what to write into them, in order.
pub(super) fn writes(rules: &[Rule]) -> Result<Vec<(&'static str, String)>, Error> {
    let (allow, exceptions) = fold(rules)?;
    let (start, file) = match allow {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    let mut all = vec![(start, "a".to_owned())];
    for (devices, access) in exceptions {
        all.push((file, format!("{devices} {access}")));
    }
    Ok(all)
}

/// The answer for all devices, and what differs from it.
fn fold(rules: &[Rule]) -> Result<(bool, BTreeMap<Devices, Access>), Error> {
    let (mut answer, mut exceptions) = (false, BTreeMap::new());
    for rule in rules {
        if rule.devices == Devices::ALL && rule.access == Access::ALL {
            (answer, exceptions) = (rule.allow, BTreeMap::new());
            continue;
        }
        for devices in with_a_kind(rule.devices) {
            if rule.allow != answer {
                let access = exceptions.entry(devices).or_insert(Access(0));
                access.0 |= rule.access.0;
                continue;
            }
            for (excepted, access) in &mut exceptions {
                if access.0 & rule.access.0 == 0 || !overlap(devices, *excepted) {
                    continue;
                }
                if !covers(devices, *excepted) {
                    let why = format!(
                        "cgroup v1 cannot take {devices} {} out of the earlier rule for \
                         {excepted}; name the devices one by one, or use a host with cgroup v2",
                        rule.access
                    );
                    return Err(Error::invalid(ASKED, why));
                }
                *access = access.without(rule.access);
            }
            exceptions.retain(|_, access| access.0 != 0);
        }
    }
    Ok((answer, exceptions))
}

/// `a` with less than all access has no form either: it is a rule for block and one for character
/// devices.
fn with_a_kind(devices: Devices) -> Vec<Devices> {
    let kinds = devices.kind.map_or(vec![Kind::Block, Kind::Character], |kind| vec![kind]);
    kinds.into_iter().map(|kind| Devices { kind: Some(kind), ..devices }).collect()
}

/// Whether some device is among both.
fn overlap(a: Devices, b: Devices) -> bool {
    let meet = |a: Option<i32>, b: Option<i32>| a.is_none() || b.is_none() || a == b;
    a.kind == b.kind && meet(a.major, b.major) && meet(a.minor, b.minor)
}

/// Whether every device of `b` is among those of `a`.
fn covers(a: Devices, b: Devices) -> bool {
    let holds = |a: Option<i32>, b: Option<i32>| a.is_none() || a == b;
    a.kind == b.kind && holds(a.major, b.major) && holds(a.minor, b.minor)
}

#[cfg(test)]
mod tests {
    use super::super::rules::testing::rules;
    use super::*;

    fn shown(json: &str) -> Result<Vec<String>, Error> {
        Ok(writes(&rules(json))?.into_iter().map(|(f, v)| format!("{f}={v}")).collect())
    }

    #[test]
    fn exceptions_are_merged_and_taken_back() {
        let json = r#"[{"allow":false},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"r"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"wm"},
            {"allow":true,"type":"b","major":8,"minor":0,"access":"rw"},
            {"allow":false,"type":"b","major":8,"access":"w"}]"#;
        assert_eq!(
            shown(json).unwrap(),
            ["devices.deny=a", "devices.allow=b 8:0 r", "devices.allow=c 1:3 rwm"]
        );
    }

    #[test]
    fn all_with_some_access_is_two_exceptions() {
        let json = r#"[{"allow":true,"access":"rwm"},{"allow":false,"access":"m"}]"#;
        assert_eq!(
            shown(json).unwrap(),
            ["devices.allow=a", "devices.deny=b *:* m", "devices.deny=c *:* m"]
        );
    }

    #[test]
    fn what_version_1_would_silently_ignore_is_an_error() {
        let json = r#"[{"allow":true,"type":"c","major":1,"access":"rw"},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#;
        assert!(shown(json).unwrap_err().to_string().contains("c 1:3 w"));
        let disjoint = r#"[{"allow":true,"type":"c","major":1,"access":"rw"},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"m"}]"#;
        assert_eq!(shown(disjoint).unwrap(), ["devices.deny=a", "devices.allow=c 1:* rw"]);
    }
}

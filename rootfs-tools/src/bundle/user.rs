//! The user of an image (`app`, `1000`, `app:staff`, `1000:1000`) in numbers.
//!
//! Names are looked up in the image's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)),
//! never in the host's, whose users are other people.

use crate::error::{Error, Result};
use crate::image::view::View;

/// More than any account file has, and less than our memory.
const FILE_LIMIT: u64 = 16 << 20;

/// A user in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Other groups that `/etc/group` lists the user in, sorted.
    pub additional: Vec<u32>,
}

/// Finds the user of an image; empty is root.
///
/// # Errors
/// When a name is not in the image's files.
pub fn find(view: &View, wanted: &str) -> Result<User> {
    let passwd = view.read("/etc/passwd", FILE_LIMIT)?.unwrap_or_default();
    let group = view.read("/etc/group", FILE_LIMIT)?.unwrap_or_default();
    resolve(wanted, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group))
}

/// The same from the text of the two files.
///
/// # Errors
/// When a name is not in them.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let account = fields(passwd).find(|line| is(line, user));
    let number = |line: &Vec<&str>, at: usize| line.get(at).and_then(|text| text.parse().ok());
    let uid = match &account {
        Some(line) => number(line, 2),
        None => user.parse().ok(),
    };
    let uid = uid.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
    let gid = match wanted_group {
        Some(name) => {
            let line = fields(group).find(|line| is(line, name));
            line.map_or_else(|| name.parse().ok(), |line| number(&line, 2))
                .ok_or_else(|| unknown("group", name, "/etc/group"))?
        }
        None => account.as_ref().and_then(|line| number(line, 3)).unwrap_or(0),
    };
    // A group that the image names explicitly is the only one, as with `docker run --user u:g`.
    let mut additional = Vec::new();
    if let (None, Some(account)) = (wanted_group, &account) {
        let member = |line: &Vec<&str>| {
            line.get(3).is_some_and(|members| members.split(',').any(|name| name == account[0]))
        };
        additional = fields(group).filter(member).filter_map(|line| number(&line, 2)).collect();
        additional.sort_unstable();
        additional.dedup();
        additional.retain(|&other| other != gid);
    }
    Ok(User { uid, gid, additional })
}

/// The lines of an account file, in fields.
fn fields(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines()
        .map(|line| line.trim().split(':').collect::<Vec<_>>())
        .filter(|line| line.len() >= 3 && !line[0].is_empty() && !line[0].starts_with('#'))
}

/// Whether a line is about this name or number. A name wins over a number, as in getpwnam(3).
fn is(line: &[&str], wanted: &str) -> bool {
    line[0] == wanted || (wanted.parse::<u32>().is_ok() && line[2] == wanted)
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::Invalid(format!("the image runs as {what} `{name}`, and its {file} has no such {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# old\napp:x:1000:1001::/:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\naudio:x:29:app\napp:x:1001:app\n";

    fn user(wanted: &str) -> Option<(u32, u32, Vec<u32>)> {
        let user = resolve(wanted, PASSWD, GROUP).ok()?;
        Some((user.uid, user.gid, user.additional))
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(user(""), Some((0, 0, vec![])));
        assert_eq!(user("app"), Some((1000, 1001, vec![29, 50])));
        assert_eq!(user("1000"), Some((1000, 1001, vec![29, 50])));
        assert_eq!(user("app:staff"), Some((1000, 50, vec![])));
        assert_eq!(user("4242"), Some((4242, 0, vec![])));
        assert_eq!(user("4242:7"), Some((4242, 7, vec![])));
        assert_eq!(user(":staff"), Some((0, 50, vec![])));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert_eq!(user("nobody"), None);
        assert_eq!(user("app:nogroup"), None);
        assert_eq!(user("-1"), None);
    }
}

//! Every key of the Compose Specification, in exactly one class.
//!
//! A key is read (needed by the lessons, or expected by people who know Compose), accepted with a
//! warning because it has no effect here, or refused. Nothing is ignored in silence. The tests hold
//! this table against the keys of the published schema (`data/compose-spec-keys.txt`), and show for
//! every key that is read that it changes the model.
//!
//! Keys below a warned or refused key share its class.

mod rejected;
mod supported;

#[cfg(test)]
mod tests;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Read; the lessons need it.
    Needed,
    /// Read; people who know Compose expect it.
    Expected,
    /// Accepted, without effect.
    Warned { effect: &'static str, remedy: &'static str },
    /// An error.
    Refused { why: &'static str, remedy: &'static str },
}

/// Keys of one class below one place.
#[derive(Debug)]
struct Group {
    /// Where: empty, or a pattern such as `services.*.deploy`.
    at: &'static str,
    /// Keys, divided by spaces.
    keys: &'static str,
    class: Class,
}

fn groups() -> impl Iterator<Item = &'static Group> {
    supported::GROUPS.iter().chain(rejected::WARNED).chain(rejected::REFUSED)
}

/// The class of a key by its pattern, as in `services.*.deploy.replicas`.
pub(crate) fn of(pattern: &str) -> Option<&'static Class> {
    let (at, key) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    groups().find(|g| g.at == at && g.keys.split(' ').any(|k| k == key)).map(|g| &g.class)
}

/// The keys known below a place.
pub(crate) fn below(at: &str) -> impl Iterator<Item = &'static str> {
    let rejected = |g: &&Group| !matches!(g.class, Class::Refused { .. });
    groups().filter(move |g| g.at == at).filter(rejected).flat_map(|group| group.keys.split(' '))
}

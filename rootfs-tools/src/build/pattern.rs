//! Patterns for names: `*`, `?`, `[a-z]` within a component (Go's filepath.Match), and `**` for any
//! number of components where that is allowed.

/// Whether a component matches a pattern without slashes.
pub fn component(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on after the last star, and how much of the name it has taken.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match single(&pattern[p..], name[n]) {
            Some(Step::Take(length)) => {
                p += length;
                n += 1;
            }
            Some(Step::Star) => {
                star = Some((p + 1, n));
                p += 1;
            }
            None => match star {
                Some((after, taken)) => {
                    p = after;
                    n = taken + 1;
                    star = Some((after, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

enum Step {
    Take(usize),
    Star,
}

fn single(pattern: &[u8], byte: u8) -> Option<Step> {
    match pattern {
        [b'*', ..] => Some(Step::Star),
        [b'?', ..] => Some(Step::Take(1)),
        [b'[', rest @ ..] => {
            let end = 1 + rest.iter().skip(1).position(|&byte| byte == b']')?;
            let (negated, set) = match rest[..end] {
                [b'^', ref set @ ..] => (true, set),
                ref set => (false, set),
            };
            (in_set(set, byte) != negated).then_some(Step::Take(end + 2))
        }
        [b'\\', literal, ..] if *literal == byte => Some(Step::Take(2)),
        [literal, ..] if *literal == byte => Some(Step::Take(1)),
        _ => None,
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = set {
        match rest {
            [b'-', last, rest @ ..] => {
                if (*first..=*last).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            _ => {
                if *first == byte {
                    return true;
                }
                set = rest;
            }
        }
    }
    false
}

/// Whether a path, or a directory above it, matches a pattern with `**`.
pub fn path_or_parent(pattern: &[&[u8]], path: &[&[u8]]) -> bool {
    match (pattern, path) {
        ([], _) => true,
        ([b"**", rest @ ..], _) => (0..=path.len()).any(|skip| {
            path_or_parent(rest, &path[skip..]) && (!rest.is_empty() || skip < path.len())
        }),
        ([first, rest @ ..], [name, deeper @ ..]) => {
            component(first, name) && path_or_parent(rest, deeper)
        }
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "ab", false),
            ("*.rs", "main.rs", true),
            ("*a*b*", "xxaxxbxx", true),
            ("?b", "ab", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]x", "]x", false),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("", "", true),
        ] {
            assert_eq!(
                component(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}

//! "Did you mean …?"

/// Whether two words differ by little: one edit in short words, two in longer ones.
pub(crate) fn close(a: &str, b: &str) -> bool {
    distance(a, b) <= if a.len().max(b.len()) < 5 { 1 } else { 2 }
}

/// Most words that one is compared with.
const MOST: usize = 200;

/// The nearest known word, or all of them when none is near.
pub(crate) fn remedy<'a>(word: &str, known: impl Iterator<Item = &'a str>, all: &str) -> String {
    let known: std::collections::BTreeSet<&str> = known.take(MOST).collect();
    let short: String = word.chars().take(64).collect();
    let nearest = known.iter().min_by_key(|candidate| distance(&short, candidate));
    match nearest {
        Some(candidate) if close(&short, candidate) => format!("did you mean `{candidate}`?"),
        Some(_) if known.len() > 20 => "docs/reference/compose.md lists the keys known here".into(),
        Some(_) => {
            let words: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
            format!("{all} {}", words.join(", "))
        }
        None => String::new(),
    }
}

/// Edits (insert, remove, replace, swap two neighbours) that make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_named_and_far_ones_are_not() {
        let known = ["image", "ports", "replicas"];
        let of = |word| remedy(word, known.into_iter(), "known are");
        assert_eq!(of("imgae"), "did you mean `image`?");
        assert_eq!(of("replica"), "did you mean `replicas`?");
        assert_eq!(of("zzz"), "known are `image`, `ports`, `replicas`");
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("", "abc"), 3);
    }
}

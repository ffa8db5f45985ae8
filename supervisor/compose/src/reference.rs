//! The generated parts of `docs/reference/compose.md`.
//!
//! `UPDATE_SCHEMA=1 cargo test -p minisup-compose` writes them anew, between their markers.

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/compose.md");

/// Holds a part of the page against what the code says.
pub(crate) fn assert_part(name: &str, text: &str) {
    // Several tests write the page; each reads it again while it holds the lock.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock().unwrap();
    let page = std::fs::read_to_string(FILE).unwrap();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = page.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
    let to = from + page[from..].find(&end).unwrap_or_else(|| panic!("no {end}"));
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(FILE, format!("{}{text}{}", &page[..from], &page[to..])).unwrap();
        return;
    }
    assert!(page[from..to] == *text, "docs/reference/compose.md is old: run with UPDATE_SCHEMA=1");
}

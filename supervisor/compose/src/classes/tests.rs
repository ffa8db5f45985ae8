//! The table against the published keys, and against what the loader really does.

use std::collections::{BTreeMap, BTreeSet};

use super::{Class, groups, of};
use crate::{Loader, Tree};

/// The keys of the published schema.
fn published() -> BTreeSet<&'static str> {
    let lines = include_str!("../../data/compose-spec-keys.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A fragment for every key that is read. The fragment is loaded in a file that is good without it.
fn samples() -> BTreeMap<&'static str, &'static str> {
    let mut samples = BTreeMap::new();
    for block in include_str!("../../data/samples.txt").split("\n== ").skip(1) {
        let (key, text) = block.split_once('\n').expect("a sample has a key and a text");
        assert!(samples.insert(key, text).is_none(), "{key} twice");
    }
    samples
}

/// The class of a key: its own, or that of a warned or refused key above it.
fn class(pattern: &str) -> Option<&'static Class> {
    let own = of(pattern);
    let mut above = pattern;
    while let Some((rest, _)) = above.rsplit_once('.') {
        above = rest;
        let key = above.trim_end_matches("[]").trim_end_matches(".*");
        if let Some(class @ (Class::Warned { .. } | Class::Refused { .. })) = of(key) {
            assert!(own.is_none(), "{pattern} has a class, and {key} above it too");
            return Some(class);
        }
    }
    own
}

#[test]
fn every_published_key_is_in_exactly_one_class() {
    let unclassified: Vec<_> = published().into_iter().filter(|key| class(key).is_none()).collect();
    assert!(unclassified.is_empty(), "no class for {unclassified:#?}");
    let mut seen = BTreeSet::new();
    for group in groups() {
        for key in group.keys.split(' ') {
            assert!(seen.insert((group.at, key)), "{}.{key} has two classes", group.at);
        }
    }
}

#[test]
fn every_classified_key_is_published() {
    let published = published();
    // Newer than the vendored list.
    let newer = BTreeSet::from(["services.*.pre_start"]);
    for group in groups() {
        for key in group.keys.split(' ') {
            let dot = if group.at.is_empty() { "" } else { "." };
            let pattern = format!("{}{dot}{key}", group.at);
            let known = published.contains(pattern.as_str()) || newer.contains(pattern.as_str());
            assert!(known, "{pattern} is not a key of Compose");
        }
    }
    let services = published
        .iter()
        .filter(|k| k.strip_prefix("services.*.").is_some_and(|k| !k.contains('.')));
    assert_eq!(services.count(), 92);
}

fn load(text: &str) -> Result<(crate::Project, Vec<crate::Warning>), crate::Errors> {
    let files = Tree::new()
        .with("/p/compose.yaml", text)
        .with("/p/vars.env", "FROM_FILE=1\n")
        .with("/p/raw.env", "QUOTED=\"1\"\n")
        .with("/p/other/.env", "INNER=fallback\n")
        .with("/p/other/inner.env", "INNER=given\n")
        .with(
            "/p/other/part.yaml",
            "services: {part: {image: 'i:${INNER:-none}', volumes: [./d:/d]}}",
        );
    Loader::new(&files, ["/p/compose.yaml"])
        .environment([("SECRET".to_owned(), "s3cret".to_owned())])
        .profiles(["on"])
        .platform("linux/amd64")
        .load()
}

#[test]
fn every_key_that_is_read_changes_the_model_and_warns_of_nothing() {
    let samples = samples();
    let read = published()
        .into_iter()
        .filter(|key| matches!(class(key), Some(Class::Needed | Class::Expected)));
    for key in read {
        let sample = samples.get(key).unwrap_or_else(|| panic!("no sample for {key}"));
        if sample.contains("# refused") {
            let path = key.replacen(".*", if key.starts_with("volumes") { ".v" } else { ".n" }, 1);
            let errors = load(sample).expect_err(key);
            assert!(errors.iter().any(|error| error.path == path), "{key}:\n{errors}");
            continue;
        }
        let (with, warnings) = load(sample).unwrap_or_else(|errors| panic!("{key}:\n{errors}"));
        let old_external = key.ends_with(".external.name");
        assert!(warnings.is_empty() || old_external, "{key}: {}", warnings[0]);
        // The same file without the lines of the key.
        let without: String = sample
            .lines()
            .filter(|line| !line.contains("# here"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_ne!(without.len(), sample.len(), "{key}: mark its line with `# here`");
        match load(&without) {
            Ok((without, _)) => {
                assert_ne!(with.to_value(), without.to_value(), "{key} changes nothing")
            }
            // Without a required key the file is not good: that shows as well that it is read.
            Err(_) => continue,
        }
    }
    for key in samples.keys() {
        assert!(
            matches!(class(key), Some(Class::Needed | Class::Expected)),
            "sample of {key} is not needed"
        );
    }
}

/// A file with only this key below its parent; the value is nothing, so no other mistake is made.
fn minimal(pattern: &str) -> String {
    let mut text = String::new();
    let mut indent = 0;
    let parts: Vec<&str> = pattern.split('.').collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        let name = if *part == "*" { "a" } else { part.trim_end_matches("[]") };
        let dash = if index > 0 && parts[index - 1].ends_with("[]") { "- " } else { "" };
        let value = if last { " x" } else { "" };
        text.push_str(&format!("{}{dash}{name}:{value}\n", " ".repeat(indent)));
        indent += 2 + dash.len();
    }
    text
}

#[test]
fn every_other_key_is_warned_about_or_refused_at_its_place() {
    for group in groups() {
        for key in group.keys.split(' ') {
            let dot = if group.at.is_empty() { "" } else { "." };
            let pattern = format!("{}{dot}{key}", group.at);
            // A path as it is printed.
            let path = pattern.replace(".*", ".a").replace("[]", "[0]");
            let mut text = minimal(&pattern);
            if !text.contains("services:") {
                text.push_str("services: {a: {image: i}}\n");
            }
            match group.class {
                Class::Needed | Class::Expected => continue,
                Class::Refused { why, remedy } => {
                    let errors = load(&text).expect_err(&pattern);
                    let found = errors.iter().find(|e| e.path == path && e.message == why);
                    let found = found.unwrap_or_else(|| panic!("{pattern}:\n{text}\n{errors}"));
                    assert_eq!(found.remedy, remedy);
                    assert!(found.location.is_some());
                }
                Class::Warned { effect, .. } => {
                    // The rest of the minimal file may be wrong; only what is found here counts.
                    let good =
                        text.replacen("services:\n  a:\n", "services:\n  a:\n    image: i\n", 1);
                    let messages: Vec<crate::Diagnostic> = match load(&good) {
                        Ok((_, warnings)) => warnings,
                        Err(_) => continue_with_warnings(&good),
                    };
                    let found = messages
                        .iter()
                        .any(|w| w.path == path && w.message == effect && w.location.is_some());
                    assert!(found, "{pattern}:\n{good}\n{messages:#?}");
                }
            }
        }
    }
}

/// The warnings of a file that is not good for other reasons.
fn continue_with_warnings(text: &str) -> Vec<crate::Diagnostic> {
    let mut cx = crate::findings::Findings::default();
    let files = Tree::new().with("/p/c.yaml", text);
    let setting = crate::assembly::Setting { base: "/p".into(), variables: Default::default() };
    let mut assembly = crate::assembly::Assembly {
        files: &files,
        cx: &mut cx,
        including: Vec::new(),
        extended: BTreeMap::new(),
        nodes: 0,
    };
    let root = assembly.load_all(&["/p/c.yaml".into()], &setting, None).expect("a tree");
    crate::Project::read(&root, "p".into(), "/p".into(), BTreeMap::new(), &mut cx);
    cx.warnings
}

#[test]
fn the_reference_names_every_key() {
    let place = |group: &super::Group, key: &str| {
        let dot = if group.at.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", group.at)
    };
    let mut read = String::from("| where | keys |\n|---|---|\n");
    let mut warned = String::from("| key | effect | instead |\n|---|---|---|\n");
    let mut refused = String::from("| key | why | instead |\n|---|---|---|\n");
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for group in groups() {
        let paths: Vec<_> =
            group.keys.split(' ').map(|k| format!("`{}`", place(group, k))).collect();
        match group.class {
            Class::Needed | Class::Expected => {
                places.entry(group.at).or_default().extend(group.keys.split(' '));
            }
            Class::Warned { effect: text, remedy } => {
                warned.push_str(&format!("| {} | {text} | {remedy} |\n", paths.join(", ")));
            }
            Class::Refused { why: text, remedy } => {
                refused.push_str(&format!("| {} | {text} | {remedy} |\n", paths.join(", ")));
            }
        }
    }
    for (at, mut keys) in places {
        keys.sort_unstable();
        let keys: Vec<_> = keys.into_iter().map(|key| format!("`{key}`")).collect();
        let at = if at.is_empty() { "top".to_owned() } else { format!("`{at}`") };
        read.push_str(&format!("| {at} | {} |\n", keys.join(" ")));
    }
    crate::reference::assert_part("read", &read);
    crate::reference::assert_part("warned", &warned);
    crate::reference::assert_part("refused", &refused);
}

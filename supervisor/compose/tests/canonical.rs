//! The canonical output loads to the same project.

use minisup_compose::{Loader, Project, Tree};
use proptest::prelude::*;

/// One file for each key that is read, without the heading.
fn samples() -> Vec<&'static str> {
    let blocks = include_str!("../data/samples.txt").split("\n== ").skip(1);
    blocks.filter_map(|block| block.split_once('\n')).map(|(_, text)| text).collect()
}

fn load(texts: &[&str]) -> Option<Project> {
    let mut tree = Tree::new()
        .with("/p/vars.env", "FROM_FILE=$$1 and \\more\n")
        .with("/p/raw.env", "QUOTED=\"${1}\"\n")
        .with("/p/other/.env", "")
        .with("/p/other/inner.env", "")
        .with("/p/other/part.yaml", "services: {part: {image: i, volumes: [./d:/d]}}");
    let mut paths = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("/p/{index}.yaml");
        tree = tree.with(&path, *text);
        paths.push(path);
    }
    Loader::new(&tree, paths)
        .environment([("SECRET".to_owned(), "s3cret".to_owned())])
        .profiles(["on"])
        .platform("linux/amd64")
        .load()
        .ok()
        .map(|(project, _)| project)
}

fn assert_reloads(project: &Project) {
    for text in [project.to_yaml(), project.to_json()] {
        let again = load(&[&text]).unwrap_or_else(|| panic!("does not load:\n{text}"));
        assert!(*project == again, "loads to something else:\n{text}\n{}", again.to_yaml());
        assert_eq!(project.to_yaml(), again.to_yaml());
    }
}

#[test]
fn every_sample_reloads() {
    let mut good = 0;
    for sample in samples() {
        if let Some(project) = load(&[sample]) {
            assert_reloads(&project);
            good += 1;
        }
    }
    // Two samples are there to be refused.
    assert_eq!(good, samples().len() - 2);
}

#[test]
fn the_output_is_sorted_and_readable() {
    let project =
        load(&["services: {b: {image: 'x:1', command: [a, 'b c', '$$HOME', '']}, a: {image: y}}"])
            .unwrap();
    let yaml = project.to_yaml();
    let expected = "  b:
    command:
      - a
      - \"b c\"
      - \"$$HOME\"
      - \"\"
    deploy:
";
    assert!(yaml.contains(expected), "{yaml}");
    assert!(yaml.find("\n  a:").unwrap() < yaml.find("\n  b:").unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Files laid over each other: what loads, reloads.
    #[test]
    fn mixed_samples_reload(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..8)) {
        let samples = samples();
        let texts: Vec<&str> = picks.iter().map(|pick| *pick.get(&samples)).collect();
        if let Some(project) = load(&texts) {
            assert_reloads(&project);
        }
    }

    /// Any text passes through unchanged, whatever characters it has.
    #[test]
    fn any_text_survives(value in any::<String>(), word in ".*", key in "[^=\\p{C}]{1,20}") {
        let quoted = |text: &str| serde_json::Value::from(text.replace('$', "$$")).to_string();
        let plain_key = serde_json::Value::from(key.as_str()).to_string();
        let text = format!(
            "services: {{a: {{image: i, environment: {{{plain_key}: {}}}, command: [{}]}}}}",
            quoted(&value), quoted(&word)
        );
        let project = load(&[&text]);
        prop_assert!(project.is_some(), "does not load: {text}");
        let project = project.unwrap();
        prop_assert_eq!(&project.services["a"].environment[&key], &value);
        prop_assert_eq!(&project.services["a"].command.as_ref().unwrap()[0], &word);
        assert_reloads(&project);
    }

    /// Extensions of other tools keep their types.
    #[test]
    fn extensions_survive(value in extension()) {
        let text = format!("services: {{a: {{image: i}}}}\nx-other: {value}\n");
        let project = load(&[&text]);
        prop_assert!(project.is_some(), "does not load: {text}");
        let project = project.unwrap();
        prop_assert_eq!(&project.extensions["x-other"], &value);
        assert_reloads(&project);
    }
}

fn extension() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f64::from(f).into()),
        "[^$]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::Array),
            prop::collection::btree_map("[a-z~:# -]{1,8}", inner, 0..5).prop_map(|map| {
                serde_json::Value::Object(map.into_iter().filter(|(k, _)| k != "<<").collect())
            }),
        ]
    })
}

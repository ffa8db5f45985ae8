//! Files that are broken, hostile or nonsense: an error in bounded time and memory, never a panic.

use minisup_compose::{Errors, Loader, Project, Tree, Warning};
use proptest::prelude::*;

fn load(bytes: &[u8]) -> Result<(Project, Vec<Warning>), Errors> {
    let tree = Tree::new()
        .with("/p/compose.yaml", bytes)
        .with("/p/.env", "A=1\nEMPTY=\n")
        .with("/p/x.env", bytes)
        .with("/p/other/part.yaml", "services: {part: {image: i}}");
    let loaded = Loader::new(&tree, ["/p/compose.yaml"]).load();
    if let Err(errors) = &loaded {
        // Printing must not fail either, and each error says something.
        assert!(errors.to_string().len() < 1 << 20);
        assert!(errors.iter().count() > 0 && errors.iter().all(|e| !e.message.is_empty()));
    }
    loaded
}

fn message(text: &str) -> String {
    let Err(errors) = load(text.as_bytes()) else { panic!("loads") };
    errors.to_string()
}

#[test]
fn limits_are_named() {
    assert!(message(&"a".repeat(1 << 21)).contains("larger than 1048576 bytes"));
    assert!(message(&format!("a: {}", "[".repeat(5000))).contains("compose.yaml"));
    assert!(
        message(&format!("services: {}1{}", "{a: ".repeat(70), "}".repeat(70))).contains("64 deep")
    );
    assert!(message(&format!("? {}\n: 1", "k".repeat(2000))).contains("longer than 1024 bytes"));
    let wide: String = (0..110_000).map(|_| "- x\n").collect();
    assert!(message(&format!("x-a:\n{wide}")).contains("more than 100000 values"));
    let nested =
        format!("services: {{a: {{image: '{}x{}'}}}}", "${A:+".repeat(100), "}".repeat(100));
    assert!(message(&nested).contains("nest more than 32 deep"));
    assert!(
        message("services: {a: {image: i, ports: ['1-65535']}}").contains("more than 1000 ports")
    );
}

#[test]
fn ranges_of_ports_cannot_fill_the_memory() {
    let ports: String = (0..40_000).map(|_| "    - '1-1000:1-1000'\n").collect();
    let text = format!("services:\n  a:\n    image: i\n    ports:\n{ports}");
    assert!(message(&text).contains("the project has more than 20000 ports"));
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let error = load(b"services:\n  a: \xff\n").unwrap_err().to_string();
    assert!(error.contains("is not UTF-8, in line 2"), "{error}");
}

#[test]
fn variables_cannot_fill_the_memory() {
    let uses = "$BIG".repeat(100_000);
    let text = format!("services: {{a: {{image: '{uses}'}}}}");
    let tree = Tree::new().with("/p/c.yaml", text);
    let loader =
        Loader::new(&tree, ["/p/c.yaml"]).environment([("BIG".into(), "x".repeat(100_000))]);
    assert!(loader.load().unwrap_err().to_string().contains("grows beyond"));
}

#[test]
fn extends_cannot_fill_the_memory() {
    let keys: String = (0..10_000).map(|i| format!("K{i}: v, ")).collect();
    let services: String = (0..200).map(|i| format!("  s{i}: {{extends: base}}\n")).collect();
    let text = format!("services:\n  base: {{image: i, labels: {{{keys}}}}}\n{services}");
    assert!(message(&text).contains("`extends` makes more than 400000 values"));
    let chain: String = (0..100).map(|i| format!("  s{i}: {{extends: s{}}}\n", i + 1)).collect();
    assert!(
        message(&format!("services:\n{chain}  s100: {{image: i}}\n"))
            .contains("goes over more than 32")
    );
}

#[test]
fn many_errors_are_cut() {
    let services: String = (0..500).map(|i| format!("  s{i}: {{imag: x}}\n")).collect();
    let errors = load(format!("services:\n{services}").as_bytes()).unwrap_err();
    assert_eq!(errors.iter().count(), 100);
    assert!(errors.to_string().ends_with("and 900 more errors"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let error = message("services: {a: {image: i, \"\\e[31mred\": 1, tty: \"\\e[2J\"}}");
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn long_circles_of_dependencies_do_not_exhaust_the_stack() {
    let services: String = (0..9000)
        .map(|i| format!("  s{i}: {{image: i, depends_on: [s{}]}}\n", (i + 1) % 9000))
        .collect();
    assert!(message(&format!("services:\n{services}")).contains("wait for each other"));
}

/// Words that Compose files are made of, and what breaks them.
const WORDS: &[&str] = &[
    "services:",
    "services",
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    " ",
    ": ",
    "- ",
    "a",
    "image: i",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&x ",
    "*x",
    "<<: ",
    "!reset ",
    "!override ",
    "!!str ",
    "\"",
    "'",
    "|",
    ">",
    "#",
    "---",
    "...",
    "$",
    "${",
    "${A",
    ":-",
    "$$",
    "ports: ",
    "\"8080:80\"",
    "1-2:3-4",
    "networks:",
    "volumes:",
    "secrets:",
    "configs:",
    "x-minisup:",
    "extends: ",
    "include: ",
    "env_file: x.env",
    "deploy:",
    "healthcheck:",
    "test: ",
    "profiles: [a]",
    "depends_on: [a]",
    "null",
    "~",
    "true",
    "0",
    "-1",
    "1e999",
    ".inf",
    "\t",
    "\r\n",
    "\u{feff}",
    "é",
    "\u{85}",
    "command: ",
    "x-a: ",
    "name: ",
    "other/part.yaml",
    "file: ",
    "service: a",
    "probes:",
    "autoscale:",
    "lb:",
    "?",
    "? ",
    "%YAML 1.2",
    "compose.yaml",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = load(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = load(text.as_bytes());
    }

    #[test]
    fn no_words_make_it_panic(words in prop::collection::vec(prop::sample::select(WORDS), 0..60)) {
        let _ = load(words.concat().as_bytes());
    }

    /// A good file with some bytes exchanged.
    #[test]
    fn no_change_makes_it_panic(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(WORDS)),
            1..4,
        ),
    ) {
        let samples: Vec<&str> = include_str!("../data/samples.txt").split("\n== ").skip(1).collect();
        let (_, text) = pick.get(&samples).split_once('\n').unwrap();
        let mut bytes = text.as_bytes().to_vec();
        for (at, word) in changes {
            let at = at.index(bytes.len());
            bytes.splice(at..=at, word.bytes());
        }
        let _ = load(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What a short form may be, in every place that has one.
    #[test]
    fn no_short_form_makes_it_panic(text in "[-0-9a-z:/.,\\[\\]$~=*%@ ]{0,24}") {
        let quoted = serde_json::Value::from(text).to_string();
        for key in ["ports", "volumes", "devices", "tmpfs", "dns", "expose", "extra_hosts", "environment", "env_file",
            "secrets", "depends_on", "networks", "device_cgroup_rules", "security_opt", "cap_add", "group_add"] {
            let _ = load(format!("services: {{a: {{image: i, {key}: [{quoted}]}}}}").as_bytes());
        }
        for key in ["command", "mem_limit", "cpus", "stop_grace_period", "restart", "user", "cpuset", "pid", "ipc",
            "network_mode", "stop_signal", "platform", "memswap_limit", "pull_policy", "hostname", "scale"] {
            let _ = load(format!("services: {{a: {{image: i, {key}: {quoted}}}}}").as_bytes());
        }
    }
}

//! Plans are decided without root, so every rule can be tried.

use serde_json::{Value, json};

use super::*;

fn decide(change: impl FnOnce(&mut Value)) -> Result<Plan> {
    let bundle = std::env::temp_dir();
    let mut document = serde_json::to_value(crate::spec::default_config()).expect("a document");
    document["root"]["path"] = json!(".");
    change(&mut document);
    let bytes = serde_json::to_vec(&document).expect("text");
    let (spec, _) = crate::spec::parse(&bytes, Path::new("config.json"))?;
    let at = Circumstances { id: "web", bundle: &bundle, user: 0, privileged: true };
    Plan::decide(&spec, &at)
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    decide(change).expect_err("a refusal").to_string()
}

#[test]
fn the_default_configuration_is_a_plan() {
    let plan = decide(|_| {}).unwrap();
    assert_eq!(plan.namespaces.new.iter().count(), 6);
    assert!(plan.process.filter.is_some());
    let sets = plan.process.capabilities.unwrap();
    assert_eq!(sets.effective.names().len(), 8);
    assert!(sets.bounding.contains("CAP_CHOWN") && !sets.bounding.contains("CAP_SYS_ADMIN"));
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    assert!(plan.mounts.iter().any(|mount| mount.source == Source::Cgroup));
}

#[test]
fn ambient_capabilities_that_cannot_be_raised_are_a_warning() {
    let plan = decide(|d| d["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"])).unwrap();
    assert!(plan.process.capabilities.unwrap().ambient.is_empty());
    assert_eq!(plan.warnings, ["CAP_KILL cannot be ambient: not both permitted and inheritable"]);
}

#[test]
fn a_duplicate_namespace_is_named() {
    let text = refused(|d| {
        d["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"}));
    });
    assert!(text.contains("duplicate namespace \"pid\""), "{text}");
}

#[test]
fn what_would_change_the_host_is_refused() {
    let no_uts = |d: &mut Value| {
        let list = d["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "uts");
    };
    assert!(refused(no_uts).contains("it would rename the host"));
    let no_mount = |d: &mut Value| {
        let list = d["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "mount");
    };
    assert!(refused(no_mount).contains("need a mount namespace"));
    for name in ["kernel.panic", "vm.swappiness", "kernel.hostname", "net.", "net.../x"] {
        let text = refused(|d| d["linux"]["sysctl"] = json!({name: "1"}));
        assert!(text.contains("linux.sysctl"), "{name}: {text}");
    }
}

#[test]
fn wrong_processes_are_refused_with_their_field() {
    let cases: [(&str, Value, &str); 7] = [
        ("args", json!([]), "args is empty"),
        ("args", json!([""]), "args is empty"),
        ("env", json!(["NOVALUE"]), "is not NAME=value"),
        ("cwd", json!("relative"), "not an absolute path"),
        ("oomScoreAdj", json!(1001), "not between"),
        ("rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]), "above the hard"),
        ("args", json!(["a\u{0}b"]), "NUL byte"),
    ];
    for (field, value, expected) in cases {
        let text = refused(|d| d["process"][field] = value);
        assert!(text.contains(expected), "{field}: {text}");
    }
}

#[test]
fn user_namespaces_need_maps_that_make_sense() {
    let with_user = |maps: Value| {
        move |d: &mut Value| {
            d["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            d["linux"]["uidMappings"] = maps.clone();
            d["linux"]["gidMappings"] = maps;
        }
    };
    let range =
        |inside: u32, size: u32| json!({"containerID": inside, "hostID": 1000, "size": size});
    assert!(decide(with_user(json!([range(0, 10)]))).is_ok());
    assert!(refused(with_user(json!([]))).contains("needs linux.uidMappings"));
    assert!(refused(with_user(json!([range(0, 0)]))).contains("is empty"));
    assert!(refused(with_user(json!([range(0, 10), range(5, 10)]))).contains("overlaps"));
}

#[test]
fn ids_are_names_and_nothing_else() {
    for id in ["web", "web-1.2_3+x", "A"] {
        assert!(check_id(id).is_ok(), "{id}");
    }
    for id in ["", ".", "..", "a/b", "a b", "ä", "../x"] {
        assert!(check_id(id).is_err(), "{id}");
    }
}

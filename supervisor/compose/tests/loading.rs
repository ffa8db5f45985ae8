//! Several files, variables, profiles: what becomes of them.

use std::path::Path;

use minisup_compose::model::{MountKind, RestartCondition};
use minisup_compose::{Errors, Loader, Millis, Project, Tree, Warning, find};

fn load(files: &[(&str, &str)]) -> Result<(Project, Vec<Warning>), Errors> {
    load_as(files, &["/p/compose.yaml"], &[])
}

fn load_as(
    files: &[(&str, &str)],
    paths: &[&str],
    profiles: &[&str],
) -> Result<(Project, Vec<Warning>), Errors> {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree = tree.with(*path, *text);
    }
    Loader::new(&tree, paths.iter().copied())
        .environment([("HOST".to_owned(), "outer".to_owned())])
        .profiles(profiles.iter().copied())
        .platform("linux/amd64")
        .load()
}

fn good(files: &[(&str, &str)]) -> Project {
    load(files).unwrap_or_else(|errors| panic!("{errors}")).0
}

/// The only error, as `line:column message`.
fn error(files: &[(&str, &str)]) -> String {
    let Err(errors) = load(files) else { panic!("loads") };
    let all: Vec<String> = errors
        .iter()
        .map(|e| {
            let place = e.location.as_ref().map(|l| format!("{}:{} ", l.line, l.column));
            format!("{}{}", place.unwrap_or_default(), e.message)
        })
        .collect();
    all.join(" | ")
}

const TWO: [&str; 2] = ["/p/compose.yaml", "/p/over.yaml"];

fn merged(base: &str, over: &str) -> Project {
    let files = [("/p/compose.yaml", base), ("/p/over.yaml", over)];
    load_as(&files, &TWO, &[]).unwrap_or_else(|errors| panic!("{errors}")).0
}

#[test]
fn the_lessons_service_loads() {
    let project = good(&[(
        "/p/compose.yaml",
        "services:
  web:
    image: improved-app:v2
    ports: [\"8080:3000\"]
    healthcheck: {test: [\"CMD\", curl, -f, \"http://localhost:3000/health\"], interval: 10s, retries: 3, timeout: 5s}
    deploy:
      replicas: 3
      update_config: {parallelism: 1, delay: 10s, order: start-first, failure_action: rollback, monitor: 5s}
      resources: {limits: {memory: 512M, cpus: \"0.5\"}, reservations: {memory: 256M}}
    x-minisup:
      probes: {ready: {http: {port: 3000, path: /health}, interval: 500ms}}
      autoscale: {min: 2, max: 12, metrics: [{cpu: 60%}, {rps: 200}, {latency_p95: 150ms}]}
",
    )]);
    let web = &project.services["web"];
    assert_eq!((project.name.as_str(), web.deploy.replicas), ("p", 3));
    assert_eq!(web.deploy.resources.limits.memory.map(|b| b.0), Some(512 << 20));
    assert_eq!(web.ports[0].published.map(|r| (r.first, r.last)), Some((8080, 8080)));
    assert_eq!(web.minisup.probes.ready.as_ref().map(|p| p.interval), Some(Millis(500)));
    assert_eq!(web.minisup.autoscale.as_ref().map(|a| a.metrics.len()), Some(3));
    assert_eq!(web.deploy.restart_policy.condition, RestartCondition::Any);
    assert_eq!(project.networks["default"].name, "p_default");
    assert_eq!(project.locate("services.web.deploy.replicas").map(|l| l.line), Some(7));
}

#[test]
fn mappings_merge_and_lists_append() {
    let project = merged(
        "services: {a: {image: i, dns: 1.1.1.1, cap_add: [NET_RAW], environment: [A=1, B=1], labels: {x: y}}}",
        "services: {a: {dns: [8.8.8.8], cap_add: [NET_RAW, CHOWN], environment: {B: 2, C: 3}}, b: {image: j}}",
    );
    let a = &project.services["a"];
    assert_eq!(a.dns.len(), 2);
    assert_eq!(a.cap_add, ["NET_RAW", "CHOWN"]);
    let environment: Vec<_> = a.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(environment, ["A=1", "B=2", "C=3"]);
    assert_eq!(a.labels["x"], "y");
    assert_eq!(project.services.len(), 2);
}

#[test]
fn commands_replace_each_other_and_ports_and_mounts_are_unique() {
    let project = merged(
        "services: {a: {image: i, command: [one, two], entrypoint: x, ports: ['80:80', '81:81'], volumes: ['v:/work', 'v:/b'], healthcheck: {test: 'true', retries: 5}}}
volumes: {v: {}, w: {}}",
        "services: {a: {command: three, ports: ['80:80', '82:82'], volumes: ['w:/work:ro'], healthcheck: {test: [CMD, 'false']}}}",
    );
    let a = &project.services["a"];
    assert_eq!(a.command.as_deref(), Some(&["three".to_owned()][..]));
    assert_eq!(a.entrypoint.as_deref(), Some(&["x".to_owned()][..]));
    let ports: Vec<u16> = a.ports.iter().map(|port| port.target).collect();
    assert_eq!(ports, [80, 81, 82]);
    assert_eq!(a.volumes.len(), 2);
    assert!(a.volumes[0].read_only);
    assert!(matches!(&a.volumes[0].kind, MountKind::Volume { source: Some(s), .. } if s == "w"));
    assert_eq!(a.healthcheck.as_ref().and_then(|h| h.retries), Some(5));
}

#[test]
fn reset_forgets_and_override_replaces() {
    let base = "services: {a: {image: i, ports: ['80:80'], environment: {A: 1, B: 1}, dns: [1.1.1.1], tty: true}}";
    let project = merged(
        base,
        "services: {a: {ports: !reset [], environment: {A: !reset null}, dns: !override [8.8.8.8], tty: !reset false}}",
    );
    let a = &project.services["a"];
    assert!(a.ports.is_empty() && !a.tty);
    assert_eq!(a.environment.keys().collect::<Vec<_>>(), ["B"]);
    assert_eq!(a.dns, ["8.8.8.8".parse::<std::net::IpAddr>().unwrap()]);
    let project = merged(base, "services: {a: !override {image: j}}");
    assert!(project.services["a"].environment.is_empty());
}

#[test]
fn what_cannot_be_merged_is_said() {
    let files = [
        ("/p/compose.yaml", "services: {a: {image: i, logging: {driver: none}}}"),
        ("/p/over.yaml", "services: {a: {logging: [x]}}"),
    ];
    let errors = load_as(&files, &TWO, &[]).expect_err("an error");
    assert!(
        errors.iter().any(|e| e.message.contains("a list cannot be merged into a mapping")),
        "{errors}"
    );
}

#[test]
fn a_null_below_a_mapping_takes_nothing_away() {
    let project = merged(
        "services: {a: {image: i, environment: {A: 1}}}",
        "services: {a: {environment: , tty: true}}",
    );
    assert_eq!(project.services["a"].environment.len(), 1);
}

#[test]
fn variables_come_from_the_caller_then_from_the_env_file() {
    let project = good(&[
        ("/p/.env", "HOST=inner\nTAG=v1\nFULL=${TAG}-full\n"),
        (
            "/p/compose.yaml",
            "name: 'my-${TAG}'\nservices: {a: {image: '${HOST}:${FULL}', scale: '$N', environment: {N: '${COMPOSE_PROJECT_NAME}', PASS: , GONE: }}}"
                .replace("$N", "${COUNT:-2}").as_str(),
        ),
    ]);
    let a = &project.services["a"];
    assert_eq!((a.image.as_str(), project.name.as_str()), ("outer:v1-full", "my-v1"));
    assert_eq!(a.deploy.replicas, 2);
    assert_eq!(a.environment["N"], "my-v1");
    assert!(!a.environment.contains_key("GONE"));
}

#[test]
fn env_files_lie_below_environment() {
    let project = good(&[
        ("/p/a.env", "A=file\nB=file\nHOST\nC=${A}-${HOST}\n"),
        ("/p/b.env", "B=second ${A}\n"),
        ("/p/raw.env", "Q=\"${A}\"\n"),
        (
            "/p/compose.yaml",
            "services:
  a:
    image: i
    environment: [A=own]
    env_file: [a.env, {path: b.env}, {path: none.env, required: false}, {path: raw.env, format: raw}]
    label_file: a.env
",
        ),
    ]);
    let a = &project.services["a"];
    let environment: Vec<_> = a.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(environment, ["A=own", "B=second file", "C=file-outer", "HOST=outer", "Q=\"${A}\""]);
    assert_eq!(a.labels["B"], "file");
    let missing = error(&[("/p/compose.yaml", "services: {a: {image: i, env_file: x.env}}")]);
    assert!(missing.starts_with("1:36 cannot read `/p/x.env`"), "{missing}");
}

#[test]
fn extends_takes_a_service_of_this_or_another_file() {
    let project = good(&[
        (
            "/p/compose.yaml",
            "services:
  base: {image: i, environment: {A: 1, B: 1}, ports: ['80']}
  a: {extends: base, environment: {B: 2}, ports: ['81:81']}
  b: {extends: {service: common, file: lib/common.yaml}, ports: !reset []}
",
        ),
        (
            "/p/lib/common.yaml",
            "services:\n  root: {image: r, volumes: ['./data:/d'], ports: ['90:90']}\n  common: {extends: root, tty: true}\n",
        ),
    ]);
    let a = &project.services["a"];
    assert_eq!(
        (a.environment["A"].as_str(), a.environment["B"].as_str(), a.ports.len()),
        ("1", "2", 2)
    );
    let b = &project.services["b"];
    assert!(b.tty && b.ports.is_empty());
    assert!(
        matches!(&b.volumes[0].kind, MountKind::Bind { source, .. } if source == Path::new("/p/lib/data"))
    );
}

#[test]
fn extends_mistakes_have_a_place() {
    let circle = "services:\n  a: {image: i, extends: b}\n  b: {image: i, extends: a}\n";
    let found = error(&[("/p/compose.yaml", circle)]);
    assert!(found.contains("services extend each other: a → b → a"), "{found}");
    let missing =
        error(&[("/p/compose.yaml", "services: {a: {image: i, extends: bse}, base: {image: i}}")]);
    assert_eq!(missing, "1:35 `/p/compose.yaml` has no service `bse`");
    let file = error(&[(
        "/p/compose.yaml",
        "services: {a: {image: i, extends: {service: x, file: no.yaml}}}",
    )]);
    assert!(file.contains("cannot read `/p/no.yaml`"), "{file}");
}

#[test]
fn an_override_file_can_change_what_is_extended_and_included() {
    let files = [
        (
            "/p/compose.yaml",
            "include: [sub/compose.yaml]\nservices: {base: {image: i, ports: ['80:80']}, a: {extends: base}}",
        ),
        ("/p/sub/compose.yaml", "services: {inner: {image: x, ports: ['70:70']}}"),
        (
            "/p/over.yaml",
            "services: {a: {ports: !reset []}, inner: {image: y}, c: {extends: base, ports: !reset []}}",
        ),
    ];
    let (project, _) = load_as(&files, &TWO, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(project.services["a"].ports.is_empty() && project.services["c"].ports.is_empty());
    assert_eq!(project.services["inner"].image, "y");
    assert_eq!(project.services["inner"].ports.len(), 1);
}

#[test]
fn include_has_its_own_directory_and_variables() {
    let project = good(&[
        ("/p/.env", "TAG=outer-file\n"),
        (
            "/p/compose.yaml",
            "include:\n  - sub/compose.yaml\n  - {path: [two/a.yaml, two/b.yaml], project_directory: ., env_file: two/x.env}\nservices: {a: {image: i, depends_on: [inner]}}",
        ),
        ("/p/sub/.env", "TAG=sub\nOWN=1\n"),
        (
            "/p/sub/compose.yaml",
            "include: [../deep.yaml]\nservices: {inner: {image: '${HOST}:${TAG}-${OWN}', volumes: ['./d:/d']}}",
        ),
        ("/p/deep.yaml", "services: {deep: {image: '${OWN}'}}\nvolumes: {v: {}}"),
        ("/p/two/x.env", "X=x\n"),
        (
            "/p/two/a.yaml",
            "services: {two: {image: '${X}', volumes: ['./d:/d']}}\nvolumes: {v: {}}",
        ),
        ("/p/two/b.yaml", "services: {two: {tty: true}}"),
    ]);
    assert_eq!(project.services["inner"].image, "outer:outer-file-1");
    assert_eq!(project.services["deep"].image, "1");
    let two = &project.services["two"];
    assert!(two.tty && two.image == "x");
    let source = |name: &str| match &project.services[name].volumes[0].kind {
        MountKind::Bind { source, .. } => source.to_string_lossy().into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((source("inner"), source("two")), ("/p/sub/d".into(), "/p/d".into()));
}

#[test]
fn include_mistakes_have_a_place() {
    let clash = [
        ("/p/compose.yaml", "include: [b.yaml]\nservices: {a: {image: i}}"),
        ("/p/b.yaml", "services: {a: {image: j}}"),
    ];
    assert_eq!(error(&clash), "2:12 `a` is also defined in an included file, at /p/b.yaml:1:12");
    let circle = [
        ("/p/compose.yaml", "include: [b.yaml]\nservices: {a: {image: i}}"),
        ("/p/b.yaml", "include: [compose.yaml]"),
    ];
    assert!(error(&circle).contains("includes itself"), "{}", error(&circle));
    let unknown = [("/p/compose.yaml", "include: [b.yaml]"), ("/p/b.yaml", "servces: {}")];
    assert_eq!(error(&unknown), "1:1 unknown key");
}

const PROFILES: &str = "services:
  foo: {image: foo}
  bar: {image: bar, profiles: [test]}
  baz: {image: baz, depends_on: [bar], profiles: [test]}
  zot: {image: zot, depends_on: [bar], profiles: [debug]}
  opt: {image: opt, depends_on: {bar: {condition: service_started, required: false}}}
";

/// The example of the specification, 15-profiles.md.
#[test]
fn profiles_choose_services() {
    let names = |profiles: &[&str]| {
        let loaded = load_as(&[("/p/compose.yaml", PROFILES)], &["/p/compose.yaml"], profiles);
        loaded.map(|(project, _)| project.services.keys().cloned().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&[]).unwrap(), "foo opt");
    assert_eq!(names(&["test"]).unwrap(), "bar baz foo opt");
    assert_eq!(names(&["debug", "test"]).unwrap(), "bar baz foo opt zot");
    assert_eq!(names(&["*"]).unwrap(), "bar baz foo opt zot");
    let errors = names(&["debug"]).unwrap_err();
    assert!(
        errors.to_string().contains("`bar` is left out: no profile of it is active"),
        "{errors}"
    );
}

#[test]
fn a_service_named_on_the_command_line_activates_its_profiles() {
    let tree = Tree::new().with("/p/compose.yaml", PROFILES);
    let of = |target: &str| Loader::new(&tree, ["/p/compose.yaml"]).targets([target]).load();
    assert!(of("baz").unwrap().0.services.contains_key("bar"));
    assert!(of("zot").is_err());
    assert!(of("none").unwrap_err().to_string().contains("there is no service `none`"));
    let (project, _) = of("foo").unwrap();
    assert_eq!(project.disabled()["zot"], ["debug"]);
}

#[test]
fn a_service_whose_end_is_awaited_runs_once() {
    let text = "services: {m: {image: m}, a: {image: i, depends_on: {m: {condition: service_completed_successfully}}}}";
    let project = good(&[("/p/compose.yaml", text)]);
    assert_eq!(project.services["m"].deploy.restart_policy.condition, RestartCondition::None);
    assert_eq!(project.startup_order(), ["m", "a"]);
    assert_eq!(project.with_dependencies(&["a"]).len(), 2);
}

#[test]
fn several_documents_are_several_files() {
    let project = good(&[(
        "/p/compose.yaml",
        "services: {a: {image: i}}\n---\nservices: {a: {tty: true}}\n",
    )]);
    assert!(project.services["a"].tty);
}

#[test]
fn anchors_and_merge_keys_work_across_extensions() {
    let project = good(&[(
        "/p/compose.yaml",
        "x-common: &common {image: i, environment: &env {A: 1}}\nservices:\n  a:\n    <<: *common\n    environment: {<<: *env, B: 2}\n",
    )]);
    assert_eq!(project.services["a"].environment.len(), 2);
    assert_eq!(project.extensions["x-common"]["image"], "i");
}

#[test]
fn the_usual_files_are_found_upwards() {
    let tree = Tree::new()
        .with("/p/compose.yml", "")
        .with("/p/compose.override.yml", "")
        .with("/q/docker-compose.yaml", "");
    let found = |path: &str| find(&tree, Path::new(path)).map(|f| f.len());
    assert_eq!((found("/p/a/b"), found("/q"), found("/r")), (Some(2), Some(1), None));
}

#[test]
fn secrets_are_not_shown() {
    let tree = Tree::new().with(
        "/p/compose.yaml",
        "services: {a: {image: i, secrets: [s]}}\nsecrets: {s: {environment: PASSWORD}}",
    );
    let loader = Loader::new(&tree, ["/p/compose.yaml"])
        .environment([("PASSWORD".into(), "hunter2".into())]);
    let (project, _) = loader.load().unwrap();
    let shown = format!("{:?} {}", project.secrets, project.to_yaml());
    assert!(!shown.contains("hunter2"), "{shown}");
    let minisup_compose::model::SecretSource::Environment { value, .. } =
        &project.secrets["s"].source
    else {
        panic!()
    };
    assert_eq!(value.reveal(), "hunter2");
}

#[test]
fn files_of_the_host_load_by_the_short_way() {
    let directory = std::env::temp_dir().join(format!("minisup-compose-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("compose.yaml");
    std::fs::write(&file, "name: disk\nservices: {a: {image: 'i:${T}', volumes: ['./d:/d']}}")
        .unwrap();
    let loaded = Project::load(&[&file], &[("T".to_owned(), "1".to_owned())].into(), &[]);
    std::fs::remove_dir_all(&directory).unwrap();
    let (project, warnings) = loaded.unwrap();
    assert_eq!((project.services["a"].image.as_str(), warnings.len()), ("i:1", 0));
    assert!(
        matches!(&project.services["a"].volumes[0].kind, MountKind::Bind { source, .. } if *source == directory.join("d"))
    );
    assert!(
        Project::load(&[&file], &Default::default(), &[])
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}

#[test]
fn options_of_the_command_line_are_one_more_file() {
    let tree = Tree::new().with("/p/compose.yaml", "services: {web: {image: i, ports: ['80:80']}}");
    let over = "services: {web: {deploy: {replicas: 3}}}";
    let loader = Loader::new(&tree, ["/p/compose.yaml"]).text("--replicas", over);
    assert_eq!(loader.load().unwrap().0.services["web"].deploy.replicas, 3);
    let wrong = Loader::new(&tree, ["/p/compose.yaml"])
        .text("--replicas", "services: {web: {deploy: {replicas: many}}}");
    let error = wrong.load().unwrap_err().to_string();
    assert!(error.starts_with("--replicas:1:37: error: services.web.deploy.replicas"), "{error}");
    let none: [&str; 0] = [];
    let alone =
        Loader::new(&tree, none).directory("/p").text("(options)", "services: {a: {image: i}}");
    assert_eq!(alone.load().unwrap().0.name, "p");
}

#[test]
fn a_project_can_be_sent_to_another_thread() {
    fn is_send<T: Send + Sync>() {}
    is_send::<Project>();
    is_send::<Warning>();
    is_send::<Errors>();
}

#[test]
fn the_example_of_the_reference_loads() {
    let page = include_str!("../../../docs/reference/compose.md");
    let example = page.split("```yaml\n").find(|block| block.starts_with("services:"));
    let example = example.and_then(|block| block.split("```").next()).unwrap();
    let files = [("/p/.env", "DB_PASSWORD=x\n"), ("/p/compose.yaml", example)];
    let (project, warnings) = load(&files).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{}", warnings[0]);
    assert_eq!(project.startup_order(), ["db", "web"]);
}

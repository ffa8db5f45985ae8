//! What people read when they have made a mistake: place, caret, remedy, and all mistakes at once.

use minisup_compose::{Loader, Severity, Tree};

fn errors(text: &str) -> Vec<String> {
    let tree = Tree::new().with("/p/compose.yaml", text);
    match Loader::new(&tree, ["/p/compose.yaml"]).platform("linux/amd64").load() {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.to_string()).collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let tree = Tree::new().with("/p/compose.yaml", text);
    let (_, warnings) =
        Loader::new(&tree, ["/p/compose.yaml"]).load().unwrap_or_else(|e| panic!("{e}"));
    assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_mistake_is_printed_with_its_line_a_caret_and_what_would_be_right() {
    let text = "services:
  web:
    image: app
    deploy:
      update_config:
        failure_acton: rollback
";
    let expected =
        "/p/compose.yaml:6:9: error: services.web.deploy.update_config.failure_acton: unknown key
   6 |         failure_acton: rollback
     |         ^^^^^^^^^^^^^
     = did you mean `failure_action`?";
    assert_eq!(errors(text), [expected]);
}

#[test]
fn every_mistake_is_found_in_one_run() {
    let text = "services:
  web:
    imag: app
    ports: [\"99999:80\"]
    mem_limit: lots
    healthcheck: {test: [curl, x], interval: 5}
  db:
    image: 5
    gpus: all
";
    let found = errors(text);
    let places: Vec<&str> = found.iter().map(|e| e.split(": error").next().unwrap()).collect();
    let expected = [
        "/p/compose.yaml:2:3",
        "/p/compose.yaml:3:5",
        "/p/compose.yaml:4:13",
        "/p/compose.yaml:5:16",
        "/p/compose.yaml:6:25",
        "/p/compose.yaml:6:46",
        "/p/compose.yaml:8:12",
        "/p/compose.yaml:9:5",
    ];
    // The first is the missing image, at the service.
    assert_eq!(places.len(), expected.len(), "{found:#?}");
    assert_eq!(places[1..], expected[1..]);
}

#[test]
fn a_variable_points_at_its_dollar_sign() {
    let found = errors("services:\n  a:\n    image: \"app:${TAG:?choose a version}\"\n");
    let expected = "/p/compose.yaml:3:17: error: services.a.image: the required variable `TAG` is not set, or empty: choose a version
   3 |     image: \"app:${TAG:?choose a version}\"
     |                 ^
     = set `TAG` in the environment or in the `.env` file";
    assert_eq!(found, [expected]);
    let block = warnings(
        "services:\n  a:\n    image: i\n    command:\n      - |\n        one\n        two $X\n",
    );
    assert!(block[0].starts_with("/p/compose.yaml:7:13: warning"), "{block:?}");
}

#[test]
fn a_mistake_in_an_env_file_is_shown_in_that_file() {
    let tree = Tree::new()
        .with("/p/compose.yaml", "services: {a: {image: i, env_file: x.env}}")
        .with("/p/x.env", "A=1\nB='open\n");
    let errors = Loader::new(&tree, ["/p/compose.yaml"]).load().unwrap_err();
    assert!(
        errors.to_string().starts_with("/p/x.env:2:3: error: this quote is not closed"),
        "{errors}"
    );
}

/// A file, and a part of each error it has.
const CASES: &[(&str, &[&str])] = &[
    (
        "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [c]}, c: {image: i, depends_on: [a]}}",
        &["services wait for each other: a → b → c → a"],
    ),
    ("services: {a: {image: i, depends_on: [bb]}, b: {image: i}}", &["did you mean `b`?"]),
    (
        "services: {a: {image: i, networks: [frnt]}}\nnetworks: {front: {}}",
        &["did you mean `front`?"],
    ),
    ("services: {a: {image: i, volumes: ['data:/d']}}", &["there is no volume `data`"]),
    ("services: {a: {image: i, secrets: [s]}}", &["there is no secret `s`"]),
    (
        "services: {a: {image: i, ports: ['80:80']}, b: {image: i, ports: ['80:81']}}",
        &["port 80 of the host is already published by services.a.ports[0]"],
    ),
    ("services: {a: {image: i, ports: ['127.0.0.1:80:80', '80:80']}}", &["already published"]),
    (
        "services: {a: {image: i, scale: 2, container_name: x}}",
        &["2 containers cannot have one name"],
    ),
    (
        "services: {a: {image: i, scale: 2, ports: [{target: 80, published: 80, mode: host}]}}",
        &["2 replicas cannot share a port"],
    ),
    (
        "services: {a: {image: i, scale: 2, deploy: {replicas: 3}}}",
        &["says something else than `deploy.replicas`"],
    ),
    (
        "services: {a: {image: i, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}}",
        &["says something else"],
    ),
    (
        "services: {a: {image: i, deploy: {resources: {limits: {memory: 64m}, reservations: {memory: 128m}}}}}",
        &["the reservation (128m) is above the limit (64m)"],
    ),
    (
        "services: {a: {image: i, deploy: {placement: {constraints: [node.labels.ssd==true]}}}}",
        &["can never be met"],
    ),
    (
        "services: {a: {image: i, deploy: {placement: {constraints: [node.role==worker]}}}}",
        &["can never be met"],
    ),
    (
        "services: {a: {image: i, deploy: {placement: {constraints: [node.platform.arch==riscv64]}}}}",
        &["can never be met: this host is linux/amd64"],
    ),
    (
        "services: {a: {image: i, deploy: {replicas: 3, placement: {max_replicas_per_node: 2}}}}",
        &["3 replicas on the only host are more than 2"],
    ),
    ("services: {a: {image: i, platform: linux/arm64}}", &["this host is linux/amd64"]),
    ("services: {a: {image: i, oom_kill_disable: true, mem_limit: 64m}}", &["would hang for ever"]),
    ("services: {a: {image: i, network_mode: host, networks: [default]}}", &["exclude each other"]),
    (
        "services: {a: {image: i, network_mode: host, ports: ['80:80']}}",
        &["nothing is published for a service in the host's network"],
    ),
    (
        "services: {a: {image: i, network_mode: 'container:x'}}",
        &["containers outside the project cannot be joined"],
    ),
    ("services: {a: {image: i, network_mode: 'service:a'}}", &["a service cannot join itself"]),
    (
        "services: {a: {image: i, network_mode: 'service:bb'}, b: {image: i}}",
        &["there is no service `bb`"],
    ),
    (
        "services: {a: {image: i, pid: 'service:b'}, b: {image: i, profiles: [x]}}",
        &["services.a.pid: `b` is left out: no profile of it is active"],
    ),
    (
        "services: {a: {image: i, pid: 'service:b'}, b: {image: i, network_mode: 'service:a'}}",
        &["services.a.pid: services wait for each other: a → b → a"],
    ),
    (
        "services: {a: {image: i, network_mode: 'service:b'}, b: {image: i, network_mode: host}}",
        &["services.a.network_mode: `b` has that of the host"],
    ),
    (
        "services: {a: {image: i, pid: 'service:b'}, b: {image: i, pid: 'service:c'}, c: {image: i}}",
        &["services.a.pid: `b` has none of its own: it is in that of `c`"],
    ),
    (
        "services: {a: {image: i, ipc: 'service:b'}, b: {image: i}}",
        &["services.a.ipc: `b` keeps it to itself"],
    ),
    (
        "services: {a: {image: i, pid: 'service:b'}, b: {image: i, deploy: {replicas: 0}}}",
        &["services.a.pid: `b` has no replicas"],
    ),
    (
        "services: {a: {image: i, pid: 'service:b', depends_on: {b: {condition: \
         service_completed_successfully, required: false}}}, b: {image: i}}",
        &["what has ended cannot be joined by `pid`", "nothing runs without what `pid` joins"],
    ),
    (
        "services: {a: {image: i, network_mode: 'service:b', ports: ['80:80'], expose: [80], \
         hostname: x, dns: [192.0.2.1], extra_hosts: ['x:192.0.2.1'], sysctls: \
         {net.core.somaxconn: 9, kernel.msgmax: 9}}, b: {image: i}}",
        &[
            "services.a.ports: the network belongs to `b`",
            "services.a.expose: the network belongs to `b`",
            "services.a.hostname: the network belongs to `b`",
            "services.a.dns: the network belongs to `b`",
            "services.a.extra_hosts: the network belongs to `b`",
            "services.a.sysctls.net.core.somaxconn: the network belongs to `b`",
        ],
    ),
    (
        "services: {a: {image: i, ipc: 'service:b', shm_size: 9m, sysctls: {kernel.msgmax: 9}}, \
         b: {image: i, ipc: shareable}}",
        &[
            "services.a.shm_size: the IPC namespace belongs to `b`",
            "services.a.sysctls.kernel.msgmax: the IPC namespace belongs to `b`",
        ],
    ),
    (
        "services: {a: {image: i, volumes: ['/a:/d', '/b:/d']}}",
        &["`/d` is already the target of services.a.volumes[0]"],
    ),
    (
        "services: {a: {image: i, tmpfs: [/d], volumes: ['/b:/d/']}}",
        &["already the target of services.a.volumes[0]"],
    ),
    ("services: {a: {image: i, volumes: ['/b:d']}}", &["`d` is not an absolute path"]),
    (
        "services: {a: {image: i, volumes: [{type: npipe, target: /d}]}}",
        &["mounts of type `npipe` are not supported"],
    ),
    (
        "services: {a: {image: i, healthcheck: {test: [curl, -f]}}}",
        &["begins with `curl`, not with CMD"],
    ),
    ("services: {a: {image: i, healthcheck: {test: []}}}", &["must not be empty"]),
    ("services: {a: {image: i, restart: sometimes}}", &["`sometimes` is not a restart policy"]),
    ("services: {a: {image: i, cap_add: [NET_ADMN]}}", &["did you mean `NET_ADMIN`?"]),
    ("services: {a: {image: i, stop_signal: SIGTREM}}", &["did you mean `TERM`?"]),
    ("services: {a: {image: i, ulimits: {nofiles: 5}}}", &["did you mean `nofile`?"]),
    (
        "services: {a: {image: i, ulimits: {nofile: {soft: 5, hard: 1}}}}",
        &["the soft limit is above the hard one"],
    ),
    ("services: {a: {image: i, user: 1000}}", &["put it in quotes: \"1000\""]),
    (
        "services: {a: {image: i, logging: {driver: syslog}}}",
        &["the log driver `syslog` is not supported"],
    ),
    (
        "services: {a: {image: i, secrets: [{source: s, mode: 440}]}}\nsecrets: {s: {file: f}}",
        &["could be octal or decimal"],
    ),
    ("services: {a: {image: i}}\nnetworks: {n: {driver: overlay}}", &["`overlay` connects hosts"]),
    (
        "services: {a: {image: i}}\nnetworks: {n: {external: true, internal: true}}",
        &["`internal` cannot be set for a network that exists already"],
    ),
    (
        "services: {a: {image: i}}\nnetworks: {n: {ipam: {config: [{subnet: 10.0.0.5/24}]}}}",
        &["write `subnet: 10.0.0.0/24`"],
    ),
    (
        "services: {a: {image: i, networks: {default: {ipv4_address: 10.0.0.9}}}}",
        &["10.0.0.9 is in no subnet"],
    ),
    (
        "services: {a: {image: i}}\nsecrets: {s: {file: f, environment: E}}",
        &["the variable `E` is not set", "has 2 sources for its value"],
    ),
    ("services: {a: {image: i}}\nsecrets: {s: {content: x}}", &["has 0 sources", "unknown key"]),
    (
        "services: {a: {image: i}}\nconfigs: {s: {}}",
        &["`file`, `environment`, `content` or `external: true`"],
    ),
    (
        "services: {a: {image: i, depends_on: {b: {condition: service_healthy}}}, b: {image: i, healthcheck: {disable: true}}}",
        &["`b` never becomes healthy"],
    ),
    (
        "services: {a: {image: i, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: i, restart: always}}",
        &["`b` never completes"],
    ),
    ("services: {'a b': {image: i}}", &["`a b` cannot be a name"]),
    ("services: {a: {image: ''}}", &["must not be empty"]),
    ("services: {a: {}}", &["the service has no image"]),
    ("services: [a]", &["must be a mapping, and this is a list"]),
    ("[a]", &["a Compose file is a mapping, and this is a list"]),
    (
        "services: {a: {image: i, command: 'echo \"open'}}",
        &["a quote in this command is not closed"],
    ),
    ("services: {a: {image: i, environment: ['=x']}}", &["the name before `=` is empty"]),
    ("services: {a: {image: i, environment: [A=1, A=2]}}", &["`A` is already listed on line 1"]),
    ("services: {a: {image: i, cap_drop: [ALL, ALL]}}", &["`ALL` is listed twice"]),
    ("services: {a: {image: i, ports: [{published: 80}]}}", &["`target` is missing"]),
    ("services: {a: {image: i, ports: [80, '80/sctp']}}", &["SCTP is not balanced here"]),
    ("services: {a: {image: i, dns: [dns.example]}}", &["write an IP address"]),
    ("services: {a: {image: i, memswap_limit: 1g}}", &["has no meaning without a memory limit"]),
    ("services: {a: {image: i, tmpfs: ['/x:sise=1']}}", &["`sise=1` is not an option of a tmpfs"]),
    ("services: {a: {image: i, security_opt: [no-new-privs]}}", &["is not a security option"]),
    ("services: {a: {image: i, devices: [nvidia.com/gpu=all]}}", &["CDI"]),
    (
        "services: {a: {image: i, deploy: {rollback_config: {failure_action: rollback}}}}",
        &["write one of `continue`, `pause`"],
    ),
    (
        "services: {a: {image: i, deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}}}",
        &["devices cannot be reserved"],
    ),
    (
        "services: {a: {image: i, x-minisup: {lb: {algoritm: p2c-ewma}}}}",
        &["did you mean `algorithm`?"],
    ),
    ("name: Not Good\nservices: {a: {image: i}}", &["`Not Good` cannot be the name of a project"]),
    ("services:\n\ta: {image: i}", &["not valid YAML"]),
    ("services: {a: {image: ${X}}}", &["a variable needs quotes"]),
    ("services: {a: {image: 'x$'}}", &["write `$$` for a dollar sign"]),
    (
        "services: {a: {image: i, deploy: {mode: replicated-job, restart_policy: {condition: any}}}}",
        &["never ends"],
    ),
    ("", &["there is nothing in the files"]),
];

#[test]
fn mistakes_and_what_is_said_about_them() {
    for (text, parts) in CASES {
        let found = errors(text);
        assert_eq!(found.len(), parts.len(), "{text}\n{}", found.join("\n"));
        for part in *parts {
            assert!(found.iter().any(|e| e.contains(part)), "{text}\n{part}\n{}", found.join("\n"));
        }
        let placed = |e: &String| e.starts_with("/p/compose.yaml:") || text.is_empty();
        assert!(found.iter().all(placed), "{text}\n{}", found.join("\n"));
        // A remedy is never missing.
        assert!(found.iter().all(|e| e.contains("\n     = ")), "{text}\n{}", found.join("\n"));
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let text = "version: '3.9'
services:
  a:
    build: {context: ., tags: [x]}
    privileged: yes
    deploy: {mode: global, placement: {preferences: [{spread: node.labels.zone}]}}
    pull_policy: daily
    logging: {driver: local, options: {tag: x}}
    x-minsup: {}
    image: ${MISSING}i
    volumes: ['data:/data:ro,Z']
volumes: {data: }
";
    let found = warnings(text);
    let parts = [
        "version",
        "the image is built with its one name",
        "`yes` is read as true",
        "there is one host",
        "preferences",
        "not refreshed by age",
        "kept as `json-file`",
        "lines carry no extra fields",
        "did you mean `x-minisup`?",
        "`MISSING` is not set",
        "volumes are not relabelled",
    ];
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for part in parts {
        assert!(found.iter().any(|w| w.contains(part)), "{part}\n{found:#?}");
    }
}

#[test]
fn later_mistakes_can_be_shown_at_their_place() {
    let tree = Tree::new().with("/p/compose.yaml", "services:\n  a:\n    image: nosuch:v1\n");
    let (project, _) = Loader::new(&tree, ["/p/compose.yaml"]).load().unwrap();
    let error =
        project.error_at("services.a.image", "the image is not in the store", "pull it first");
    assert!(
        error.to_string().starts_with("/p/compose.yaml:3:12: error: services.a.image"),
        "{error}"
    );
    let above = project.error_at("services.a.ports[0]", "x", "y");
    assert_eq!(above.location.map(|l| l.line), Some(2));
}

#[test]
fn very_long_lines_are_cut_around_the_caret() {
    let text =
        format!("services: {{a: {{image: i, labels: {{x: '{}'}}, tyt: true}}}}", "y".repeat(5000));
    let error = errors(&text).pop().unwrap();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[1].len() < 130, "{error}");
    let caret = lines[2].find('^').unwrap();
    assert_eq!(&lines[1][caret..caret + 3], "tyt");
}

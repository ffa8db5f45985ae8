//! Images that Docker made: its archive comes into the store, and a container of it under minirun is
//! what it is under Docker; and what the store exports, Docker loads.

use super::engines::{docker, shell};
use crate::suites::images::{run_image, tools};
use crate::world::World;

/// What makes the layers: files; and then what deletes, hides, links and gives away.
const FIRST: &str = "mkdir /data /data/old; echo one >/data/old/one; echo gone >/data/gone; \
                     echo x >/data/x";
const SECOND: &str = "rm /data/gone; rm -r /data/old; mkdir /data/old; echo two >/data/old/two; \
                      ln /data/x /data/y; ln -s x /data/z; chown 1000:5 /data/x; chmod 4751 /data/x";
/// What the image runs: everything that must be the same everywhere.
const LOOK: &str = "find /data | sort; stat -c \"%A %h %u %g %s %n\" x y z old/two; \
                    stat -c \"%A %u %g %n\" . old; id; pwd; echo $A";

pub(super) fn saved_and_loaded(world: &World) {
    let _docker = docker(world, "\"default-runtime\": \"runc\"");
    let run = "docker run --network none --name";
    shell(world, &format!("{run} first box sh -c '{FIRST}'; docker commit first first"));
    shell(world, &format!("{run} second first sh -c '{SECOND}'"));
    let look = serde_json::json!(["sh", "-c", LOOK]);
    shell(
        world,
        &format!(
            "docker commit -c 'ENV A=b' -c 'WORKDIR /data' -c 'USER user' -c 'EXPOSE 80' \
             -c 'VOLUME /kept' -c 'LABEL maker=docker' -c 'CMD {look}' second team/made:v1
             docker tag team/made:v1 team/made:v2
             docker save -o made.tar team/made:v1
             docker save team/made:v1 team/made:v2 | gzip >two.tgz"
        ),
    );
    let theirs = shell(world, "docker run --rm --network none team/made:v1");
    assert!(theirs.contains("two") && !theirs.contains("gone"), "{theirs}");
    assert!(theirs.ends_with("/data\nb\n"), "{theirs}");
    let count = shell(world, "docker image inspect -f '{{len .RootFS.Layers}}' team/made:v1");
    let layers = format!("{} layers", count.trim());
    let file = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    let said = tools(world, &["import", &file("made.tar"), "made"]).exits(0).output;
    assert!(said.contains(&layers), "{said}");
    let said = tools(world, &["import", &file("two.tgz"), "--ref", "team/made:v2", "again"]);
    assert!(said.exits(0).output.contains(&layers), "the archive of two names");
    for name in ["made", "again"] {
        let ran = run_image(world, &[name]).run().exits(0);
        assert_eq!(ran.output, theirs, "{}", ran.errors);
    }
    // And back, under another name: the same configuration, and the same words.
    tools(world, &["export", "made", &file("ours.tar")]).exits(0);
    shell(
        world,
        "docker rm first second; docker rmi -f team/made:v1 team/made:v2; docker load -q -i ours.tar",
    );
    let id = "$(docker images -q made | head -n 1)";
    let back = shell(world, &format!("docker run --rm --network none {id}"));
    assert_eq!(back, theirs);
    println!("images of Docker: {} layers there and back", count.trim());
}

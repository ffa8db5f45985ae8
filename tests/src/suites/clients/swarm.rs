//! Docker Swarm with minirun as the default runtime: three replicas, and a new one for one that
//! dies.

use super::engines::{docker, shell};
use crate::call::wait_until;
use crate::world::World;

pub(super) fn heals(world: &World) {
    let _docker = docker(world, "\"default-runtime\": \"minirun\"");
    shell(world, "docker swarm init --advertise-addr 127.0.0.1");
    // Without a registry nobody can say which digest `box` stands for.
    shell(
        world,
        "docker service create -d --name web --replicas 3 --restart-delay 1s --no-resolve-image \
         box sleep 1000",
    );
    let running = || -> Vec<String> {
        let text = shell(world, "docker ps -q --filter name=web");
        text.lines().map(str::to_owned).collect()
    };
    let three = || wait_until(|| running().len() == 3);
    assert!(three() || three(), "three replicas: {}", tasks(world));
    let victim = running().swap_remove(0);
    let inspect = format!("docker inspect -f '{{{{.HostConfig.Runtime}}}}' {victim}");
    assert_eq!(shell(world, &inspect), "minirun\n");

    shell(world, &format!("docker kill {victim}"));
    let healed = || {
        wait_until(|| {
            let now = running();
            now.len() == 3 && !now.contains(&victim)
        })
    };
    assert!(healed() || healed(), "a new one for {victim}: {}", tasks(world));

    shell(world, "docker service scale -d web=1");
    let one = || wait_until(|| running().len() == 1);
    assert!(one() || one(), "one replica: {}", tasks(world));
    shell(world, "docker service rm web; docker swarm leave --force");
    println!("Docker Swarm on minirun: three replicas, one killed, healed, scaled to one");
}

/// What Swarm says of its tasks.
fn tasks(world: &World) -> String {
    shell(world, "docker service ps --no-trunc web 2>&1 || true; docker ps -a")
}

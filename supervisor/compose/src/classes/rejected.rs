//! The keys that have no effect here, and those that are errors, each with what to do instead.

use super::{Class, Group};

const fn warned(
    at: &'static str,
    keys: &'static str,
    effect: &'static str,
    remedy: &'static str,
) -> Group {
    Group { at, keys, class: Class::Warned { effect, remedy } }
}

const fn refused(
    at: &'static str,
    keys: &'static str,
    why: &'static str,
    remedy: &'static str,
) -> Group {
    Group { at, keys, class: Class::Refused { why, remedy } }
}

pub(super) const WARNED: &[Group] = &[
    warned("", "version", "has no effect: the format has no versions any more", "remove it"),
    warned(
        "services.*.build",
        "cache_from cache_to",
        "has no effect: the results of steps are kept in the image store",
        "remove it",
    ),
    warned(
        "services.*.build",
        "labels tags",
        "has no effect: the image is built with its one name",
        "write LABEL in the Containerfile; give more names with `rootfs-tools tag`",
    ),
    warned(
        "services.*.build",
        "pull platforms",
        "has no effect: it is built for this machine, from the images of the store",
        "remove it; pull the image that it begins with",
    ),
    warned(
        "services.*.build",
        "isolation shm_size ulimits extra_hosts",
        "has no effect: RUN has the limits and names of this machine",
        "remove it",
    ),
    warned(
        "services.*",
        "develop",
        "has no effect: files are not watched",
        "remove it, or keep it for `docker compose watch`",
    ),
    warned(
        "services.*",
        "mac_address",
        "has no effect: the address is chosen for each replica",
        "remove it; services find each other by name",
    ),
    warned(
        "services.*",
        "links external_links",
        "has no effect: every service of a network is found by its name",
        "remove it; for another name use `networks: {NETWORK: {aliases: [NAME]}}`",
    ),
    warned(
        "services.*",
        "credential_spec isolation cpu_count cpu_percent",
        "has no effect: it exists for Windows containers",
        "remove it; CPUs are limited by `cpus` or `deploy.resources.limits.cpus`",
    ),
    warned(
        "services.*",
        "storage_opt",
        "has no effect: the writable layer has no options",
        "remove it; for a limited writable directory use `tmpfs` with `size=`",
    ),
    warned(
        "services.*",
        "cpu_rt_period cpu_rt_runtime",
        "has no effect: cgroup v2 has no real-time budget",
        "remove it; use `cpus`, `cpu_shares` or `cpuset`",
    ),
    warned(
        "services.*",
        "pull_refresh_after",
        "has no effect: images are not refreshed by age",
        "remove it; pull a newer image and run `minisup up` again",
    ),
    warned(
        "services.*.deploy.placement",
        "preferences",
        "has no effect: there is one host to place replicas on",
        "remove it",
    ),
    warned(
        "services.*.networks.*",
        "mac_address link_local_ips interface_name driver_opts",
        "has no effect: addresses and interfaces are chosen for each replica",
        "remove it",
    ),
    warned(
        "services.*.volumes[]",
        "consistency",
        "has no effect: mounts on Linux are always consistent",
        "remove it",
    ),
    warned(
        "services.*.volumes[].bind",
        "selinux",
        "has no effect: files are not relabelled",
        "remove it; label the directory with `chcon`, or use a volume",
    ),
    warned(
        "services.*.volumes[].volume",
        "labels",
        "has no effect on a mount",
        "set `labels` of the volume under the top-level `volumes`",
    ),
    warned(
        "networks.*",
        "attachable",
        "has no effect: containers outside the project cannot join",
        "remove it",
    ),
    warned(
        "networks.*.ipam",
        "options",
        "has no effect: the address allocator has no options",
        "remove it",
    ),
    warned(
        "secrets.*",
        "template_driver",
        "has no effect: values are used as they are",
        "remove it, and write the final value",
    ),
    warned(
        "configs.*",
        "template_driver",
        "has no effect: values are used as they are",
        "remove it, and write the final value; `content` may hold variables",
    ),
];

pub(super) const REFUSED: &[Group] = &[
    refused(
        "services.*.build",
        "additional_contexts dockerfile_inline entitlements privileged secrets ssh",
        "is not supported",
        "build the image with another tool, import it, and name it with `image:`",
    ),
    refused(
        "",
        "models",
        "language models are not run here",
        "run the model as a service of its own, and pass its address in `environment`",
    ),
    refused(
        "services.*",
        "models",
        "language models are not run here",
        "run the model as a service of its own, and pass its address in `environment`",
    ),
    refused(
        "services.*",
        "provider",
        "services managed by another program are not supported",
        "start that program yourself, and pass its address in `environment`",
    ),
    refused(
        "services.*",
        "use_api_socket",
        "there is no Docker API here to hand to a container",
        "remove it; for minisup's own API mount its socket as a volume",
    ),
    refused(
        "services.*",
        "gpus",
        "GPUs are not supported",
        "give the device files with `devices`, if the driver needs nothing else",
    ),
    refused(
        "services.*",
        "volumes_from",
        "mounts of another container cannot be taken over",
        "name the shared volume in `volumes` of both services",
    ),
    // Newer than the vendored list of keys.
    refused(
        "services.*",
        "pre_start",
        "hooks before the start are not supported",
        "make it a service, and depend on it with `condition: service_completed_successfully`",
    ),
    refused(
        "services.*.deploy.resources.reservations",
        "devices generic_resources",
        "devices cannot be reserved",
        "give the device files with `devices`",
    ),
    refused(
        "services.*.volumes[]",
        "image",
        "images cannot be mounted as volumes",
        "unpack it with `rootfs-tools`, and mount the directory with `type: bind`",
    ),
    refused(
        "secrets.*",
        "driver driver_opts",
        "secrets of other systems cannot be fetched",
        "write the secret to a file, and name it with `file`",
    ),
];

//! The keys that are read.

use super::{Class, Group};

const fn needed(at: &'static str, keys: &'static str) -> Group {
    Group { at, keys, class: Class::Needed }
}

const fn expected(at: &'static str, keys: &'static str) -> Group {
    Group { at, keys, class: Class::Expected }
}

pub(super) const GROUPS: &[Group] = &[
    needed("", "name services networks volumes"),
    expected("", "include secrets configs"),
    expected("include[]", "path env_file project_directory"),
    needed(
        "services.*",
        "image command entrypoint environment ports deploy healthcheck restart mem_limit cpus \
         stop_signal stop_grace_period labels scale networks volumes",
    ),
    expected(
        "services.*",
        "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent configs \
         container_name cpu_shares cpu_quota cpu_period cpuset depends_on device_cgroup_rules \
         devices dns dns_opt dns_search domainname env_file label_file expose extends extra_hosts \
         group_add hostname init ipc logging mem_reservation mem_swappiness memswap_limit \
         network_mode oom_kill_disable oom_score_adj pid pids_limit platform post_start pre_stop \
         privileged profiles pull_policy read_only runtime security_opt shm_size \
         secrets sysctls stdin_open tmpfs tty ulimits user uts userns_mode working_dir",
    ),
    needed(
        "services.*.deploy",
        "mode endpoint_mode replicas labels rollback_config update_config resources \
         restart_policy placement",
    ),
    needed(
        "services.*.deploy.update_config",
        "parallelism delay failure_action monitor max_failure_ratio order",
    ),
    needed(
        "services.*.deploy.rollback_config",
        "parallelism delay failure_action monitor max_failure_ratio order",
    ),
    needed("services.*.deploy.resources", "limits reservations"),
    needed("services.*.deploy.resources.limits", "cpus memory pids"),
    needed("services.*.deploy.resources.reservations", "cpus memory"),
    needed("services.*.deploy.restart_policy", "condition delay max_attempts window"),
    needed("services.*.deploy.placement", "constraints max_replicas_per_node"),
    needed(
        "services.*.healthcheck",
        "disable interval retries test timeout start_period start_interval",
    ),
    needed("services.*.ports[]", "name mode host_ip target published protocol app_protocol"),
    expected(
        "services.*.blkio_config",
        "device_read_bps device_read_iops device_write_bps device_write_iops weight weight_device",
    ),
    expected("services.*.blkio_config.device_read_bps[]", "path rate"),
    expected("services.*.blkio_config.device_read_iops[]", "path rate"),
    expected("services.*.blkio_config.device_write_bps[]", "path rate"),
    expected("services.*.blkio_config.device_write_iops[]", "path rate"),
    expected("services.*.blkio_config.weight_device[]", "path weight"),
    expected("services.*.build", "context dockerfile args target network no_cache"),
    expected("services.*.configs[]", "source target uid gid mode"),
    expected("services.*.secrets[]", "source target uid gid mode"),
    expected("services.*.depends_on.*", "restart required condition"),
    expected("services.*.devices[]", "source target permissions"),
    expected("services.*.env_file[]", "path format required"),
    expected("services.*.extends", "service file"),
    expected("services.*.logging", "driver options"),
    expected("services.*.networks.*", "aliases ipv4_address ipv6_address priority gw_priority"),
    expected("services.*.post_start[]", "command user privileged working_dir environment"),
    expected("services.*.pre_stop[]", "command user privileged working_dir environment"),
    expected("services.*.ulimits.*", "soft hard"),
    expected("services.*.volumes[]", "type source target read_only bind volume tmpfs"),
    expected("services.*.volumes[].bind", "propagation create_host_path recursive"),
    expected("services.*.volumes[].volume", "nocopy subpath"),
    expected("services.*.volumes[].tmpfs", "size mode"),
    expected(
        "networks.*",
        "name driver driver_opts ipam external internal enable_ipv4 enable_ipv6 labels",
    ),
    expected("networks.*.ipam", "driver config"),
    expected("networks.*.ipam.config[]", "subnet ip_range gateway aux_addresses"),
    expected("networks.*.external", "name"),
    expected("volumes.*", "name driver driver_opts external labels"),
    expected("volumes.*.external", "name"),
    expected("secrets.*", "name environment file external labels"),
    expected("secrets.*.external", "name"),
    expected("configs.*", "name content environment file external labels"),
    expected("configs.*.external", "name"),
];

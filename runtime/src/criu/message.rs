//! What is said to CRIU and what it answers: the part of its `rpc.proto` that minirun uses.
//!
//! The numbers are CRIU's; what is left out here is left to its defaults.

use prost::Message;

/// One request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<Options>,
    /// Whether what a notification was about went well.
    #[prost(bool, optional, tag = "3")]
    pub(crate) notified: Option<bool>,
}

/// What a request asks for, and what an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// How processes are taken apart or put together.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    /// The directory of the images, a descriptor of whoever made the socket.
    #[prost(int32, required, tag = "1")]
    pub(crate) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
    #[prost(bool, tag = "3")]
    pub(crate) leave_running: bool,
    #[prost(bool, tag = "4")]
    pub(crate) ext_unix_sk: bool,
    #[prost(bool, tag = "5")]
    pub(crate) tcp_established: bool,
    /// Devices that were opened by another name are found by their number.
    #[prost(bool, tag = "6")]
    pub(crate) evasive_devices: bool,
    #[prost(bool, tag = "7")]
    pub(crate) shell_job: bool,
    #[prost(bool, tag = "8")]
    pub(crate) file_locks: bool,
    #[prost(int32, tag = "9")]
    pub(crate) log_level: i32,
    #[prost(string, tag = "10")]
    pub(crate) log_file: String,
    /// Whether CRIU tells what it is about to do, and waits for a word.
    #[prost(bool, tag = "12")]
    pub(crate) notify_scripts: bool,
    /// The root of the processes: a mount point.
    #[prost(string, optional, tag = "13")]
    pub(crate) root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub(crate) parent_img: Option<String>,
    #[prost(bool, tag = "15")]
    pub(crate) track_mem: bool,
    #[prost(bool, tag = "16")]
    pub(crate) auto_dedup: bool,
    #[prost(int32, optional, tag = "17")]
    pub(crate) work_dir_fd: Option<i32>,
    #[prost(bool, tag = "18")]
    pub(crate) link_remap: bool,
    /// Mounts that come from outside.
    #[prost(message, repeated, tag = "23")]
    pub(crate) ext_mnt: Vec<Pair>,
    #[prost(bool, tag = "24")]
    pub(crate) manage_cgroups: bool,
    #[prost(message, repeated, tag = "25")]
    pub(crate) cg_root: Vec<CgroupRoot>,
    /// Whether the first process becomes a child of CRIU's parent.
    #[prost(bool, tag = "26")]
    pub(crate) rst_sibling: bool,
    /// Descriptors of the CRIU process that take the place of what came from outside.
    #[prost(message, repeated, tag = "27")]
    pub(crate) inherit_fd: Vec<InheritFd>,
    #[prost(bool, tag = "30")]
    pub(crate) ext_masters: bool,
    #[prost(int32, optional, tag = "34")]
    pub(crate) manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub(crate) external: Vec<String>,
    /// Kinds of namespaces whose content is left out, as flags of clone(2).
    #[prost(uint32, optional, tag = "38")]
    pub(crate) empty_ns: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub(crate) join_ns: Vec<JoinNamespace>,
    /// The cgroup in which all processes can be frozen.
    #[prost(string, optional, tag = "44")]
    pub(crate) freeze_cgroup: Option<String>,
    #[prost(bool, tag = "46")]
    pub(crate) tcp_skip_in_flight: bool,
    #[prost(bool, tag = "50")]
    pub(crate) orphan_pts_master: bool,
    #[prost(bool, tag = "52")]
    pub(crate) tcp_close: bool,
    #[prost(string, optional, tag = "53")]
    pub(crate) lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub(crate) lsm_mount_context: Option<String>,
    #[prost(int32, optional, tag = "64")]
    pub(crate) network_lock: Option<i32>,
    /// The older way of mounting, which does not insist on the peer groups of before.
    #[prost(bool, tag = "65")]
    pub(crate) mntns_compat_mode: bool,
}

/// A mount from outside: its name in the images (or where it is), and where it comes from.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pair {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(string, required, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub(crate) controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(int32, required, tag = "2")]
    pub(crate) fd: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, required, tag = "2")]
    pub(crate) file: String,
}

/// One answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(crate) success: bool,
    #[prost(message, optional, tag = "4")]
    pub(crate) restored: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub(crate) notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    pub(crate) errno: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub(crate) message: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Restored {
    #[prost(int32, required, tag = "1")]
    pub(crate) pid: i32,
}

/// What CRIU is about to do, or has just done.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Notify {
    #[prost(string, optional, tag = "1")]
    pub(crate) moment: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_criu_reads() {
        let options = Options { images_dir_fd: 5, pid: Some(300), ..Options::default() };
        let request =
            Request { kind: Kind::Dump as i32, options: Some(options), ..Request::default() };
        // Field 1, number 1; field 2, five bytes: field 1, number 5; field 2, number 300.
        let wanted = [0x08, 0x01, 0x12, 0x05, 0x08, 0x05, 0x10, 0xac, 0x02];
        assert_eq!(request.encode_to_vec(), wanted);
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        assert!(Answer::decode(&[0xff_u8, 0xff][..]).is_err());
        let answer = Answer::decode(&[0x08_u8, 0x02, 0x10, 0x01, 0x22, 0x02, 0x08, 0x07][..]);
        assert_eq!(answer.unwrap().restored, Some(Restored { pid: 7 }));
    }
}

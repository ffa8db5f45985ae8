//! Groups in the real kernel, natively or in a guest, with either version of cgroups.
//!
//! One thread, because a process that is born in a group is a copy of this one. Every group is
//! below `/minirun-cgroups-PID`, which is removed at the end of its test.

fn main() {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, cgroups::all()).exit();
}

#[cfg(test)]
mod cgroups {
    pub(crate) mod group;
    mod life;
    mod limits;
    mod systemd;

    use libtest_mimic::Trial;

    pub(crate) fn all() -> Vec<Trial> {
        let mut all = life::all();
        all.extend(limits::all());
        all.extend(systemd::all());
        all
    }
}

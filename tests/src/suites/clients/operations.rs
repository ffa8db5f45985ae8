//! Operations, as `engines.ops` and `containerd.ops` write them.
//!
//! ```text
//! ## NAME [ENGINE]      one begins; without an engine it is for every one; `v1` and `v2` stand
//!                       for all of them on such cgroups
//! shell lines
//! #> what they print
//! ```

/// What an operation's shell lines may use besides `$E`, `$R`, `$NET`, `$N` and `$I`.
///
/// `await TEXT COMMAND…` runs the command until it prints the text, and prints what it printed
/// last; an engine is told when a container starts, but not when what is in it is ready. `goes_on`
/// says so of a container that writes something else to /tmp/now again and again.
pub(super) const SHELL: &str = r#"
up() { $E run -d --name $N $R "$@" >/dev/null; }
field() { $E inspect -f "{{$1}}" $N; }
on_terminal() { script -qec "$1" /dev/null | tr -d '\r' | sed 's/^\^@//'; } # ctr closes its input
await() {
    wanted=$1
    shift
    tries=0
    while shown=$("$@" 2>/dev/null); test "$shown" != "$wanted" && test $tries -lt 300; do
        tries=$((tries + 1))
        sleep 0.2
    done
    echo "$shown"
}
goes_on() {
    then=$($E exec $N cat /tmp/now)
    tries=0
    while test "$($E exec $N cat /tmp/now)" = "$then" && test $tries -lt 50; do
        tries=$((tries + 1))
    done
    test $tries -lt 50 && echo goes on
}
status() { ctr task ls | grep "^$N " | while read -r name pid status; do echo "$status"; done; }
pod() {
    mkdir -p /run/cri-logs/$N
    $E runp $R $N | tee -a pods
}
container() {
    made_in=$1
    shift
    made=$($E create $made_in $N-c $I "$@") && $E start $made && echo $made
}
remove_pods() {
    for made in $(cat pods); do
        $E stopp $made
        $E rmp $made
    done
}
remove_task() {
    ctr task delete -f $N
    ctr container delete $N
}
"#;

/// Something that an engine is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// What the table calls it.
    pub(super) name: &'static str,
    /// What is run.
    pub(super) lines: String,
    /// What it prints on standard output when it is right; may hold `$N`.
    pub(super) expected: String,
}

/// The operations in `text` that are for one of `engines`, and, `with_common`, those for all.
pub(super) fn of(text: &'static str, engines: &[&str], with_common: bool) -> Vec<Operation> {
    let mut found = Vec::new();
    for part in text.split("\n## ").skip(1) {
        let (heading, body) = part.split_once('\n').unwrap_or((part, ""));
        let (name, wanted) = match heading.strip_suffix(']').and_then(|all| all.split_once(" [")) {
            Some((name, only)) => (name, engines.contains(&only)),
            None => (heading, with_common),
        };
        if !wanted {
            continue;
        }
        let (said, lines): (Vec<&str>, Vec<&str>) =
            body.lines().partition(|line| line.starts_with("#> "));
        let expected: Vec<&str> = said.iter().map(|line| &line[3..]).collect();
        found.push(Operation { name, lines: lines.join("\n"), expected: expected.join("\n") });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read() {
        let text = "# words\n\n## one\na\n#> x\nb\n#> y\n## two [podman]\nc\n";
        let one = Operation { name: "one", lines: "a\nb".into(), expected: "x\ny".into() };
        let two = Operation { name: "two", lines: "c".into(), expected: String::new() };
        assert_eq!(of(text, &["podman"], false), [two]);
        assert_eq!(of(text, &["docker"], true), [one]);
    }
}

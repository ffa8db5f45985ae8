//! What a profile says about a call, read off the profile each time: no order, no ranges, no
//! halves, nothing shared with the compiler but the table of numbers.

use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::*;

/// All answers that rules of the profile give. More than one when rules overlap and disagree.
pub(super) fn answers(profile: &LinuxSeccomp, native: Architecture, call: &Call) -> Vec<u32> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let named = profile.architectures().clone().unwrap_or_default();
    let listed =
        |architecture: Architecture| architecture == native || named.contains(&architecture.oci());
    let x32 = call.audit == X86_64 && call.number & X32 != 0;
    let architecture = match call.audit {
        _ if call.number == u32::MAX && call.audit == native.audit() => return vec![default],
        X86_64 if x32 => Architecture::X32,
        X86_64 => Architecture::X86_64,
        I386 => Architecture::X86,
        AARCH64 => Architecture::Aarch64,
        ARM => Architecture::Arm,
        _ => return vec![KILL_THREAD],
    };
    if !listed(architecture) || !native.family().contains(&architecture) {
        return vec![KILL_THREAD];
    }
    if call.number == u32::MAX {
        return vec![default];
    }
    by_rules(profile, architecture, call, default)
}

fn by_rules(
    profile: &LinuxSeccomp,
    architecture: Architecture,
    call: &Call,
    default: u32,
) -> Vec<u32> {
    let mut last = None;
    let mut unconditional = None;
    let mut matching = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        let own = action(rule.action(), rule.errno_ret());
        for name in rule.names() {
            let number = syscalls::by_name(name).and_then(|found| found.number(architecture));
            last = last.max(number.filter(|number| *number < 0xf_0000 || *number & X32 != 0));
            let arguments = rule.args().clone().unwrap_or_default();
            let mut forms = vec![(number, arguments.clone())];
            if architecture == Architecture::X86
                && let Some((through, selector)) = multiplexed::way_to(name)
            {
                let by = if through == "socketcall" { 102 } else { 117 };
                forms.push((Some(by), with_selector(arguments, selector)));
            }
            for (number, arguments) in forms {
                if number != Some(call.number) || own == default {
                    continue;
                }
                match meets(&arguments, call, architecture) {
                    Meets::Always => unconditional = unconditional.or(Some(own)),
                    Meets::Now => matching.push(own),
                    Meets::Not => {}
                }
            }
        }
    }
    if let Some(first) = unconditional {
        return vec![first];
    }
    if matching.is_empty() {
        let permissive = [0x7fff_0000, 0x7ffc_0000, 0x7ff0_0000].contains(&(default & !0xffff));
        let private = architecture == Architecture::Arm && call.number >= 0xf_0000;
        let new = last.is_some_and(|last| call.number > last) && !private && !permissive;
        return vec![if new { ERRNO | 38 } else { default }];
    }
    matching.dedup();
    matching
}

fn with_selector(mut arguments: Vec<LinuxSeccompArg>, selector: u32) -> Vec<LinuxSeccompArg> {
    let twice = is_twice(&arguments);
    assert!(!twice, "the generator makes no such profiles for multiplexed calls");
    arguments.retain(|argument| argument.index() != 0);
    let json = format!(r#"{{"index":0,"value":{selector},"op":"SCMP_CMP_EQ"}}"#);
    arguments.push(serde_json::from_str(&json).unwrap());
    arguments
}

enum Meets {
    Always,
    Now,
    Not,
}

fn is_twice(arguments: &[LinuxSeccompArg]) -> bool {
    let mut indices: Vec<_> = arguments.iter().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    indices.windows(2).any(|pair| pair[0] == pair[1])
}

fn meets(arguments: &[LinuxSeccompArg], call: &Call, architecture: Architecture) -> Meets {
    let low = if architecture.has_wide_arguments() { u64::MAX } else { 0xffff_ffff };
    let holds = |argument: &LinuxSeccompArg| {
        use LinuxSeccompOperator as Is;
        let (actual, value) = (call.arguments[argument.index()] & low, argument.value() & low);
        match argument.op() {
            Is::ScmpCmpEq => actual == value,
            Is::ScmpCmpNe => actual != value,
            Is::ScmpCmpLt => actual < value,
            Is::ScmpCmpLe => actual <= value,
            Is::ScmpCmpGt => actual > value,
            Is::ScmpCmpGe => actual >= value,
            Is::ScmpCmpMaskedEq => actual & value == argument.value_two().unwrap_or(0) & value,
        }
    };
    let void = |argument: &LinuxSeccompArg| {
        argument.op() == LinuxSeccompOperator::ScmpCmpMaskedEq && argument.value() & low == 0
    };
    let twice = is_twice(arguments);
    let always = if twice { arguments.iter().any(void) } else { arguments.iter().all(void) };
    let now = if twice { arguments.iter().any(holds) } else { arguments.iter().all(holds) };
    match (always, now) {
        (true, _) => Meets::Always,
        (false, true) => Meets::Now,
        (false, false) => Meets::Not,
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

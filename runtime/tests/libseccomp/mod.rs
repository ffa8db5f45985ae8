//! libseccomp as a witness: a process that compiles profiles with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use linux::seccomp::SockFilter;
use minirun::seccomp::{Architecture, Call, compile_for, run};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// A profile in the form that both sides can be asked about.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) native: Architecture,
    pub(crate) architectures: Vec<Architecture>,
    /// Actions are the kernel's numbers.
    pub(crate) default: u32,
    pub(crate) rules: Vec<Rule>,
}

/// One call of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) action: u32,
    /// Index, operator, value, second value.
    pub(crate) arguments: Vec<(usize, &'static str, u64, u64)>,
}

/// libseccomp's filter for a profile.
#[derive(Debug)]
pub(crate) struct Theirs {
    pub(crate) program: Vec<SockFilter>,
    /// What libseccomp knows as the last call that the profile names, per architecture.
    last: BTreeMap<String, u32>,
    /// What the compilation took, driven from Python.
    pub(crate) milliseconds: f64,
}

/// The running witness.
#[derive(Debug)]
pub(crate) struct Witness {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Witness {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libseccomp/witness.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("apt-get install python3 libseccomp2");
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, questions, answers }
    }

    fn ask(&mut self, question: &Value) -> Value {
        let questions = self.questions.as_mut().unwrap();
        writeln!(questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("the witness died: see its message above")
    }

    /// The answer about a profile, or `None` where libseccomp refuses it as contradictory.
    fn ask_about(&mut self, profile: &Profile, calls: &Value) -> Option<Value> {
        let mut question = json!({
            "native": profile.native.to_string(),
            "architectures":
                profile.architectures.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "default": profile.default,
            "rules": profile.rules.iter().map(|rule| json!({
                "name": rule.name, "action": rule.action, "args": rule.arguments,
            })).collect::<Vec<_>>(),
        });
        if !calls.is_null() {
            question["calls"] = calls.clone();
        }
        let answer = self.ask(&question);
        if let Some(error) = answer["error"].as_i64() {
            assert_eq!(error, 17, "libseccomp fails with an errno other than EEXIST");
            return None;
        }
        Some(answer)
    }

    /// What the rules mean to libseccomp for some calls (architecture, name, arguments): the number
    /// and the action of each.
    pub(crate) fn meaning(
        &mut self,
        profile: &Profile,
        calls: &[(Architecture, &str, [u64; 6])],
    ) -> Option<Vec<(u32, u32)>> {
        let calls: Vec<_> = calls
            .iter()
            .map(|(architecture, name, arguments)| {
                json!([architecture.to_string(), name, arguments])
            })
            .collect();
        let answer = self.ask_about(profile, &calls.into())?;
        Some(serde_json::from_value(answer["answers"].clone()).unwrap())
    }

    /// libseccomp's filter, or `None` where it refuses the profile as contradictory.
    pub(crate) fn compile(&mut self, profile: &Profile) -> Option<Theirs> {
        let answer = self.ask_about(profile, &Value::Null)?;
        let program = instructions(answer["program"].as_str().unwrap());
        let last = serde_json::from_value(answer["last"].clone()).unwrap();
        let milliseconds = answer["milliseconds"].as_f64().unwrap();
        Some(Theirs { program, last, milliseconds })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.questions.take();
        self.process.wait().unwrap();
    }
}

/// Reads `struct sock_filter` of this machine from hexadecimal digits.
fn instructions(hex: &str) -> Vec<SockFilter> {
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let instruction = |chunk: &[u8]| SockFilter {
        code: u16::from_ne_bytes([chunk[0], chunk[1]]),
        jt: chunk[2],
        jf: chunk[3],
        k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    };
    bytes.chunks_exact(8).map(instruction).collect()
}

impl Profile {
    /// The profile without the names that this libseccomp is too old for.
    pub(crate) fn of(profile: &LinuxSeccomp, native: Architecture, witness: &mut Witness) -> Self {
        let rules = profile.syscalls().iter().flatten();
        let mut names: Vec<_> = rules.clone().flat_map(|rule| rule.names()).collect();
        names.sort_unstable();
        let answer = witness.ask(&json!({ "resolve": names }));
        let unknown: Vec<String> = serde_json::from_value(answer["unknown"].clone()).unwrap();
        let rules = rules
            .flat_map(|rule| rule.names().iter().map(move |name| (name, rule)))
            .filter(|(name, _)| !unknown.contains(name))
            .map(|(name, rule)| {
                let arguments = rule.args().iter().flatten().map(|argument| {
                    let op = operator(&argument.op().to_string());
                    (argument.index(), op, argument.value(), argument.value_two().unwrap_or(0))
                });
                let action = rule.action().as_u32(rule.errno_ret());
                Rule { name: name.clone(), action, arguments: arguments.collect() }
            });
        Self {
            native,
            architectures: native.family().to_vec(),
            default: profile.default_action().as_u32(profile.default_errno_ret()),
            rules: rules.collect(),
        }
    }

    /// Our filter.
    pub(crate) fn compile(&self) -> Vec<SockFilter> {
        let (default, errno) = action(self.default);
        let rules: Vec<_> = self.rules.iter().map(Rule::json).collect();
        let architectures: Vec<_> =
            self.architectures.iter().map(|architecture| architecture.oci()).collect();
        let profile = json!({
            "defaultAction": default, "defaultErrnoRet": errno,
            "architectures": architectures, "syscalls": rules,
        });
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        compile_for(&profile, self.native)
            .unwrap_or_else(|error| panic!("libseccomp takes it, we do not: {error}\n{self:#x?}"))
            .program
            .instructions
    }
}

impl Rule {
    fn json(&self) -> Value {
        let (action, errno) = action(self.action);
        let arguments: Vec<_> = self
            .arguments
            .iter()
            .map(|(index, op, value, two)| {
                json!({ "index": index, "value": value, "valueTwo": two,
                        "op": format!("SCMP_CMP_{op}") })
            })
            .collect();
        json!({ "names": [self.name], "action": action, "errnoRet": errno, "args": arguments })
    }
}

fn operator(name: &str) -> &'static str {
    let known = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
    let found = known.into_iter().find(|op| name.strip_prefix("SCMP_CMP_") == Some(op));
    found.unwrap_or_else(|| panic!("unknown operator {name}"))
}

/// The profile's words for an action.
fn action(raw: u32) -> (&'static str, Option<u32>) {
    match raw {
        0x7fff_0000 => ("SCMP_ACT_ALLOW", None),
        0x0003_0000 => ("SCMP_ACT_TRAP", None),
        0x8000_0000 => ("SCMP_ACT_KILL_PROCESS", None),
        0x0005_0000..=0x0005_0fff => ("SCMP_ACT_ERRNO", Some(raw & 0xffff)),
        other => panic!("the test uses no action {other:#x}"),
    }
}

impl Theirs {
    /// What libseccomp's filter answers behind the prologue that runc puts before it: calls beyond
    /// the last one that the profile names do not exist, unless the default lets calls through.
    pub(crate) fn answer(&self, profile: &Profile, call: &Call) -> u32 {
        // runc looks at the x32 bit alone, libseccomp at all from there on; no call has a number
        // that they see differently, and we go with libseccomp.
        let architecture = match (call.audit, call.number >= 0x4000_0000) {
            (0xc000_003e, false) => "x86_64",
            (0xc000_003e, true) => "x32",
            (0x4000_0003, _) => "x86",
            (0xc000_00b7, _) => "aarch64",
            (0x4000_0028, _) => "arm",
            _ => "none",
        };
        let private = architecture == "arm" && call.number >= 0xf_0000;
        let new = self.last.get(architecture).is_some_and(|last| call.number > *last);
        if new && !private && call.number != u32::MAX && profile.default != 0x7fff_0000 {
            return 0x0005_0026;
        }
        run(&self.program, call).unwrap().raw()
    }
}

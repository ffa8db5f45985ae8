#!/usr/bin/env python3
"""What libseccomp makes of a profile, in the way in which runc drives it.

Reads one JSON object per line: {"native", "architectures", "default", "rules": [{"name", "action",
"args": [[index, operator, value, value_two]]}]}, actions as the kernel's numbers. Answers each with
one line: {"program": hex of the BPF program, "last": {architecture: largest number named},
"milliseconds": what that took} or {"error": errno}. With "calls": [[architecture, name, arguments]] it answers {"answers": [[number,
action]]} from libseccomp's pseudo code, which shows what the rules mean to it. {"resolve": [names]}
answers {"unknown": [names without a number in libseccomp]}.

It needs libseccomp.so.2 and nothing else. Only the calls are ours, the decisions are libseccomp's.
"""

import ctypes
import json
import os
import re
import sys
import time

lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_release.argtypes = [ctypes.c_void_p]
lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
lib.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
lib.seccomp_export_pfc.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
lib.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
lib.seccomp_arch_native.restype = ctypes.c_uint32

TOKENS = {"x86_64": 0xC000003E, "x32": 0x4000003E, "x86": 0x40000003,
          "aarch64": 0xC00000B7, "arm": 0x40000028}
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
ERROR = -1
ACTIONS = {"ALLOW": 0x7FFF0000, "ERRNO": 0x50000, "TRAP": 0x30000, "KILL_PROCESS": 0x80000000}
# Numbers of asm/unistd_32.h for calls that libseccomp resolves to their multiplexed form.
X86_DIRECT = dict(zip(
    "socket socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername "
    "sendto sendmsg recvfrom recvmsg shutdown".split(), range(359, 374)))
X86_DIRECT.update(zip(
    "semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl".split(),
    range(393, 403)))
X86_DIRECT.update(recvmmsg=337, sendmmsg=345)


class Argument(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def number(architecture, name):
    if architecture == "x86" and name in X86_DIRECT:
        return X86_DIRECT[name]
    found = lib.seccomp_syscall_resolve_name_arch(TOKENS[architecture], name.encode())
    return found if found >= 0 else None


def add(context, rule, arguments):
    array = (Argument * len(arguments))(
        *[Argument(index, OPERATORS[op], a, b) for index, op, a, b in arguments])
    call = lib.seccomp_syscall_resolve_name_arch(lib.seccomp_arch_native(), rule["name"].encode())
    return lib.seccomp_rule_add_array(context, rule["action"], call, len(arguments), array)


def export(function, context):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        # What comes is smaller than a pipe.
        function(context, writer)
        os.close(writer)
        return stream.read()


def meaning(pseudo_code, calls):
    """Runs pseudo code, which is Python but for a few signs: a section for each architecture."""
    decide = {}
    for section in re.split(r"(?m)^# filter for arch ", pseudo_code.decode())[1:]:
        source = ["def decide(syscall, a):"]
        for line in section.splitlines()[2:]:
            indent, text = re.match(r"( *)(.*)", line).groups()
            if text.startswith("#") or not indent:
                continue
            text = re.sub(r"\$a(\d)\.hi32", r"(a[\1] >> 32)", text)
            text = re.sub(r"\$a(\d)(\.lo32)?", r"(a[\1] & 0xffffffff)", text)
            text = re.sub(r"\((.*) & (0x\w+) (.*)\)$", r"((\1 & \2) \3)", text)
            text = text.replace("$syscall", "syscall").replace("else", "else:")
            text = re.sub(r"action (.*);", r"return '\1'", text)
            source.append(indent + text + (":" if text.startswith("if") else ""))
            if not text.startswith("return"):
                source.append(indent + "  pass")
        names = {}
        exec("\n".join(source), names)
        decide[section.split()[0]] = names["decide"]
    answers = []
    for architecture, name, arguments in calls:
        called = number(architecture, name)
        answers.append([called, action(decide[architecture](called, arguments))])
    return answers


def action(text):
    name, _, data = text.rstrip(")").partition("(")
    return ACTIONS[name] | int(data or 0)


def compile_profile(profile):
    architectures = [profile["native"]] + profile["architectures"]
    start = time.monotonic()
    context = lib.seccomp_init(profile["default"])
    if len(profile["rules"]) > 32:
        lib.seccomp_attr_set(context, 8, 2)  # SCMP_FLTATR_CTL_OPTIMIZE: a tree, as runc has it
    try:
        for architecture in architectures:
            lib.seccomp_arch_add(context, TOKENS[architecture])
        if lib.seccomp_arch_native() not in [TOKENS[one] for one in architectures]:
            lib.seccomp_arch_remove(context, lib.seccomp_arch_native())
        for rule in profile["rules"]:
            if rule["action"] == profile["default"]:
                continue
            call = lib.seccomp_syscall_resolve_name_arch(
                lib.seccomp_arch_native(), rule["name"].encode())
            if call == ERROR:
                continue
            indices = [argument[0] for argument in rule["args"]]
            twice = len(set(indices)) < len(indices)
            for arguments in [[one] for one in rule["args"]] if twice else [rule["args"]]:
                error = add(context, rule, arguments)
                if error:
                    return {"error": -error}
        if "calls" in profile:
            return {"answers": meaning(export(lib.seccomp_export_pfc, context), profile["calls"])}
        program = export(lib.seccomp_export_bpf, context)
        milliseconds = round(1000 * (time.monotonic() - start), 1)
    finally:
        lib.seccomp_release(context)
    last = {}
    for architecture in architectures:
        numbers = [number(architecture, rule["name"]) for rule in profile["rules"]]
        numbers = [one for one in numbers if one is not None]
        if architecture == "arm":
            numbers = [one for one in numbers if one < 0xF0000]
        if numbers:
            last[architecture] = max(numbers)
    return {"program": program.hex(), "last": last, "milliseconds": milliseconds}


def main():
    for line in sys.stdin:
        question = json.loads(line)
        if "resolve" in question:
            unknown = [name for name in question["resolve"]
                       if all(number(one, name) is None for one in TOKENS)]
            answer = {"unknown": unknown}
        else:
            answer = compile_profile(question)
        print(json.dumps(answer), flush=True)


main()

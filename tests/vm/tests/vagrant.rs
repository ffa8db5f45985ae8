//! The Vagrantfile at the root of the project, as Vagrant itself sees it.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
};

const NEEDED: &[(&str, &str)] = &[
    ("vagrant", "vagrant"),
    ("/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json", "vagrant-libvirt"),
];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Validates a Vagrantfile's text for a provider: whether it is right, and what Vagrant said.
fn validate(text: &str, provider: &str) -> (bool, String) {
    let directory = env::temp_dir().join(format!("vagrant-{}-{provider}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("Vagrantfile"), text).unwrap();
    // Vagrant checks a provider's settings only where the provider is installed. For VirtualBox
    // it asks this program, which is all that it needs to know.
    let installed = directory.join("VBoxManage");
    fs::write(&installed, "#!/bin/sh\necho 7.0.20r163906\n").unwrap();
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.display(), env::var("PATH").unwrap());
    let output = Command::new("vagrant")
        .arg("validate")
        .current_dir(&directory)
        .env("PATH", path)
        .env("VAGRANT_HOME", directory.join("home"))
        .env("VAGRANT_DEFAULT_PROVIDER", provider)
        .env("VAGRANT_CHECKPOINT_DISABLE", "1")
        .output()
        .unwrap();
    fs::remove_dir_all(directory).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
#[ignore = "needs the packages vagrant and vagrant-libvirt"]
fn the_vagrantfile_is_valid_for_both_providers() {
    vm::ensure_packages(NEEDED).unwrap();
    let text = fs::read_to_string(project().join("Vagrantfile")).unwrap();
    for provider in ["libvirt", "virtualbox"] {
        let (valid, said) = validate(&text, provider);
        assert!(valid, "{provider}: {said}");
        // The check sees the provider's own settings, or it would prove nothing.
        let broken = text.replace(&format!("{provider}.cpus"), &format!("{provider}.cpuz"));
        assert_ne!(broken, text);
        let (valid, said) = validate(&broken, provider);
        assert!(!valid && said.contains("cpuz"), "{provider}: {said}");
    }
}

#[test]
fn the_command_in_the_vagrantfile_is_the_one_in_the_manual() {
    let text = fs::read_to_string(project().join("Vagrantfile")).unwrap();
    let command = "vagrant up && vagrant ssh -c 'cd /vagrant && sudo cargo xtask test'";
    assert!(text.contains(command));
    let manual = fs::read_to_string(project().join("docs/operating/vm.md")).unwrap();
    assert!(manual.contains(command));
}

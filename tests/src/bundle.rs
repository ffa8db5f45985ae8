//! A bundle whose configuration a test changes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A directory with a config.json and a root file system.
pub(crate) struct Bundle {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// The configuration, as it is on disk.
    pub(crate) config: Value,
}

impl Bundle {
    /// Its path as text.
    pub(crate) fn path(&self) -> &str {
        self.dir.to_str().expect("UTF-8")
    }

    /// A path in its root file system.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Sets the program.
    pub(crate) fn args(self, arguments: &[&str]) -> Self {
        self.set("/process/args", json!(arguments))
    }

    /// Lets the shell run a script.
    pub(crate) fn shell(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// Sets the value at a JSON pointer, whose parent must exist, and saves.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let parent = self.config.pointer_mut(parent).expect("the parent of the pointer");
        match parent {
            Value::Array(list) if key == "-" => list.push(value),
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            other => other[key] = value,
        }
        self.save();
        self
    }

    /// Removes a property, and saves.
    pub(crate) fn unset(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let parent = self.config.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.expect("the parent of the pointer").remove(key);
        self.save();
        self
    }

    /// Adds a mount.
    pub(crate) fn mount(
        self,
        destination: &str,
        kind: &str,
        source: &str,
        options: &[&str],
    ) -> Self {
        let mount = json!({
            "destination": destination, "type": kind, "source": source, "options": options,
        });
        self.set("/mounts/-", mount)
    }

    /// Leaves the mount at `destination` out.
    pub(crate) fn without_mount(mut self, destination: &str) -> Self {
        let list = self.config["mounts"].as_array_mut().expect("mounts");
        list.retain(|mount| mount["destination"] != destination);
        self.save();
        self
    }

    /// Leaves one kind of namespace out.
    pub(crate) fn without_namespace(mut self, kind: &str) -> Self {
        let list = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != kind);
        self.save();
        self
    }

    /// Joins the namespace of that kind at `path` instead of making one.
    pub(crate) fn join_namespace(self, kind: &str, path: &str) -> Self {
        self.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}))
    }

    /// Writes a file into the root file system.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.rootfs(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("make it");
        std::fs::write(&path, content).expect("write a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .expect("set its mode");
        self
    }

    /// Makes a link in the root file system.
    pub(crate) fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let path = self.rootfs(path);
        if path.symlink_metadata().is_ok_and(|old| !old.is_dir()) {
            std::fs::remove_file(&path).expect("remove what is there");
        }
        std::os::unix::fs::symlink(target, path).expect("make a link");
        self
    }

    /// Writes config.json.
    pub(crate) fn save(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("it is JSON");
        std::fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }
}
